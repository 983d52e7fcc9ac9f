//! Tests of a change whose caller stops waiting during the write: its locks are held until the
//! write has ended and is applied.

use std::sync::Arc;

use chrono::Utc;
use object_store::local::LocalFileSystem;

use super::{Access, Catalog, Document, NewKey, Scope, read_document};
use crate::store::Store;
use crate::store::gate::Gate;

fn bed() -> (tempfile::TempDir, Gate, Store) {
    let folder = tempfile::tempdir().unwrap();
    let gate = Gate::default();
    let root = folder.path().canonicalize().unwrap();
    let store =
        Store::on_disk(Arc::new(gate.clone()), Arc::new(LocalFileSystem::new()), &root).unwrap();
    (folder, gate, store)
}

fn add(text: &str) -> impl FnMut(&mut Document) -> crate::error::Result<String> + use<> {
    let text = text.to_owned();
    move |document| {
        let key = NewKey { scopes: [Scope::View].into(), ..NewKey::default() };
        Ok(document.add_key(&text, key, Utc::now())?.id.clone())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_change_undoes_no_change_of_others() {
    let (_folder, gate, store) = bed();
    let catalog = Catalog::open(&store, 0, Utc::now).await.unwrap();
    let old = catalog.change(add("old")).await.unwrap();
    gate.close();
    let mut slow = Box::pin(catalog.change(add("slow")));
    tokio::select! {
        _ = &mut slow => panic!("it was not held up"),
        () = gate.reached() => {}
    }
    drop(slow);
    assert!(catalog.is_changing(), "the write goes on, and so must the lock");
    let operator = Access::operator("test");
    let mut revoke = Box::pin(catalog.change(|document| {
        assert_eq!(document.keys.len(), 2, "it is built on what was written before");
        document.revoke_key(&old, &operator, Utc::now()).map(|_| ())
    }));
    assert!(futures::poll!(&mut revoke).is_pending());
    gate.open();
    revoke.await.unwrap();
    let document = read_document(&store).await.unwrap().unwrap();
    assert!(document.keys[0].revoked_at.is_some() && document.keys.len() == 2);
    assert_eq!(document, catalog.state().document);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_is_dropped_after_any_step_is_there_whole_or_not_at_all() {
    let (_folder, _, store) = bed();
    let catalog = Catalog::open(&store, 0, Utc::now).await.unwrap();
    for steps in 0..40 {
        let mut dropped = Box::pin(catalog.change(add(&format!("dropped {steps}"))));
        for _ in 0..steps {
            if futures::poll!(&mut dropped).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(dropped);
        let kept = catalog.change(add(&format!("kept {steps}"))).await.unwrap();
        let document = read_document(&store).await.unwrap().unwrap();
        assert_eq!(document, catalog.state().document);
        assert!(document.keys.iter().any(|key| key.id == kept), "after {steps} steps");
    }
}
