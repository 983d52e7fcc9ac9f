use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

use std::path::Path as FilePath;

use object_store::ObjectStoreExt;
use object_store::memory::InMemory;

use super::*;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Counts the reads that reach the store below.
#[derive(Debug)]
struct Counting(InMemory, AtomicU64);

impl fmt::Display for Counting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counting")
    }
}

#[async_trait]
impl ObjectStore for Counting {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        self.0.put_opts(location, payload, opts).await
    }
    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(location, opts).await
    }
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.get_opts(location, options).await
    }
    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(locations)
    }
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }
    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }
    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}

/// A cache over a store in memory that counts reads.
struct Bed {
    folder: tempfile::TempDir,
    store: Arc<Counting>,
    cache: DiskCache,
}

impl Bed {
    fn new(most_bytes: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Counting(InMemory::new(), AtomicU64::new(0)));
        let cache = open(&folder, &store, most_bytes);
        Self { folder, store, cache }
    }

    fn reopen(&mut self, most_bytes: u64) {
        self.cache = open(&self.folder, &self.store, most_bytes);
    }

    async fn put(&self, name: &str, size: u64) -> (Path, Vec<u8>) {
        let path = Path::from(format!("logs/retention_days=30/date=2026-11-21/{name}.parquet"));
        let bytes: Vec<u8> = (0..size).map(|at| (at * 31 + at / 251) as u8).collect();
        self.cache.put(&path, bytes.clone().into()).await.unwrap();
        (path, bytes)
    }

    fn reads(&self) -> u64 {
        self.store.1.swap(0, Ordering::Relaxed)
    }

    fn entries(&self) -> Vec<PathBuf> {
        let folders = fs::read_dir(self.folder.path().join("cache")).into_iter().flatten();
        folders
            .flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap())
            .map(|e| e.unwrap().path())
            .collect()
    }
}

fn open(folder: &tempfile::TempDir, store: &Arc<Counting>, most_bytes: u64) -> DiskCache {
    DiskCache::new(
        Arc::clone(store) as Arc<dyn ObjectStore>,
        folder.path().join("cache"),
        "here",
        most_bytes,
    )
}

fn range(bytes: &[u8], range: Range<u64>) -> &[u8] {
    &bytes[range.start as usize..(range.end as usize).min(bytes.len())]
}

#[tokio::test]
async fn a_block_serves_every_range_in_it_and_survives_a_restart() {
    let mut bed = Bed::new(64 * MIB);
    let (path, bytes) = bed.put("part-a", 3 * MIB + 5).await;
    let asked = [10..20, 255 * KIB..257 * KIB, 3 * MIB - 1..3 * MIB + 5];
    for reads in [2, 0] {
        let found = bed.cache.get_ranges(&path, &asked).await.unwrap();
        asked
            .iter()
            .zip(found)
            .for_each(|(asked, found)| assert_eq!(found, range(&bytes, asked.clone())));
        assert_eq!(bed.reads(), reads, "the first two ranges lie together, the last one far off");
    }
    // Another range of the same blocks, past the end of the file.
    assert_eq!(
        bed.cache.get_range(&path, 3 * MIB..9 * MIB).await.unwrap(),
        range(&bytes, 3 * MIB..9 * MIB)
    );
    let stats = bed.cache.blocks().stats();
    assert_eq!((bed.reads(), stats.misses), (0, 4), "{stats:?}");
    bed.reopen(64 * MIB);
    assert_eq!(bed.cache.get_range(&path, 0..4 * KIB).await.unwrap(), range(&bytes, 0..4 * KIB));
    let stats = bed.cache.blocks().stats();
    assert_eq!((bed.reads(), stats.hits, stats.misses), (0, 1, 0));
    assert!(stats.bytes > 2 * 256 * KIB, "{stats:?}");
}

#[tokio::test]
async fn object_metadata_is_the_same_from_the_cache() {
    let bed = Bed::new(64 * MIB);
    let (path, bytes) = bed.put("part-a", MIB).await;
    let options =
        || GetOptions { range: Some(GetRange::Bounded(MIB - 7..2 * MIB)), ..GetOptions::default() };
    let bare = bed.store.get_opts(&path, options()).await.unwrap();
    for _ in 0..2 {
        let cached = bed.cache.get_opts(&path, options()).await.unwrap();
        assert_eq!((&cached.range, &cached.meta.e_tag), (&bare.range, &bare.meta.e_tag));
        assert_eq!((cached.meta.size, &cached.meta.location), (MIB, &path));
        assert_eq!(
            cached.meta.last_modified.timestamp_micros(),
            bare.meta.last_modified.timestamp_micros()
        );
        assert_eq!(cached.bytes().await.unwrap(), range(&bytes, MIB - 7..MIB));
    }
    assert!(bed.cache.get_range(&path, MIB..MIB + 1).await.is_err(), "nothing lies there");
}

#[tokio::test]
async fn only_data_files_are_kept_and_big_reads_go_past() {
    let bed = Bed::new(256 * MIB);
    for path in [
        "logs/_delta_log/00000000000000000010.checkpoint.parquet",
        "catalog.json",
        "exports/a.parquet",
    ] {
        let path = Path::from(path);
        bed.cache.put(&path, "old".into()).await.unwrap();
        assert_eq!(bed.cache.get_range(&path, 0..3).await.unwrap(), "old");
        bed.cache.put(&path, "new".into()).await.unwrap();
        assert_eq!(bed.cache.get_range(&path, 0..3).await.unwrap(), "new");
        assert_eq!(bed.cache.get_ranges(&path, &[0..1, 1..3]).await.unwrap(), ["n", "ew"]);
    }
    let (path, bytes) = bed.put("part-a", 9 * MIB).await;
    assert_eq!(bed.cache.get_range(&path, 0..9 * MIB).await.unwrap(), bytes);
    assert_eq!(bed.cache.get(&path).await.unwrap().bytes().await.unwrap(), bytes);
    let scattered: Vec<_> = (0..36).map(|block| block * 256 * KIB..block * 256 * KIB + 1).collect();
    assert_eq!(bed.cache.get_ranges(&path, &scattered).await.unwrap().len(), 36);
    assert!(bed.entries().is_empty());
}

#[tokio::test]
async fn blocks_that_were_used_longest_ago_go_first_and_the_ceiling_holds() {
    // Space for eight blocks and their headers.
    let most = 8 * 256 * KIB + 4 * KIB;
    let mut bed = Bed::new(most);
    let (path, bytes) = bed.put("part-a", 4 * MIB).await;
    let read = async |bed: &Bed, block: u64| {
        let at = block * 256 * KIB..block * 256 * KIB + 100;
        assert_eq!(bed.cache.get_range(&path, at.clone()).await.unwrap(), range(&bytes, at));
        assert!(bed.cache.blocks().stats().bytes <= most);
        bed.reads()
    };
    for block in 0..8 {
        assert_eq!(read(&bed, block).await, 1);
    }
    assert_eq!((read(&bed, 0).await, read(&bed, 8).await), (0, 1));
    assert_eq!((read(&bed, 0).await, read(&bed, 1).await), (0, 1), "1 was used longest ago, not 0");
    let on_disk: u64 = bed.entries().iter().map(|entry| fs::metadata(entry).unwrap().len()).sum();
    assert_eq!(on_disk, bed.cache.blocks().stats().bytes);
    bed.reopen(3 * 256 * KIB);
    let _ = bed.cache.get_range(&path, 0..1).await.unwrap();
    assert!(bed.entries().len() <= 2, "a smaller ceiling holds from the start");
}

#[tokio::test]
async fn a_torn_or_swapped_entry_is_a_miss() {
    let mut bed = Bed::new(64 * MIB);
    let (path, bytes) = bed.put("part-a", 600 * KIB).await;
    let (other, _) = bed.put("part-b", 600 * KIB).await;
    let whole = 0..600 * KIB;
    let _ = bed.cache.get_range(&other, 0..1).await.unwrap();
    let foreign = fs::read(&bed.entries()[0]).unwrap();
    fs::remove_file(&bed.entries()[0]).unwrap();
    assert_eq!(bed.cache.get_range(&path, whole.clone()).await.unwrap(), bytes);
    let entries = bed.entries();
    assert_eq!(entries.len(), 3);
    type Harm<'a> = Box<dyn Fn(&FilePath) + 'a>;
    let harms: [Harm<'_>; 5] = [
        Box::new(|entry| fs::write(entry, b"").unwrap()),
        Box::new(|entry| fs::write(entry, &fs::read(entry).unwrap()[..1000]).unwrap()),
        Box::new(|entry| {
            let mut torn = fs::read(entry).unwrap();
            *torn.last_mut().unwrap() ^= 1;
            fs::write(entry, torn).unwrap();
        }),
        Box::new(|entry| fs::write(entry, &foreign).unwrap()),
        Box::new(|entry| fs::remove_file(entry).unwrap()),
    ];
    for harm in harms {
        for reopen in [false, true] {
            let _ = bed.cache.get_range(&path, whole.clone()).await.unwrap();
            bed.entries().iter().for_each(|entry| harm(entry));
            if reopen {
                bed.reopen(64 * MIB);
            }
            bed.reads();
            assert_eq!(bed.cache.get_range(&path, whole.clone()).await.unwrap(), bytes);
            assert_eq!(bed.reads(), 1);
            assert_eq!(bed.cache.get_range(&path, whole.clone()).await.unwrap(), bytes);
            assert_eq!(bed.reads(), 0);
        }
    }
}

#[tokio::test]
async fn leftovers_are_removed_and_a_folder_that_cannot_be_written_only_costs_reads() {
    let bed = Bed::new(64 * MIB);
    let folder = bed.folder.path().join("cache");
    fs::create_dir_all(folder.join("ab")).unwrap();
    fs::write(folder.join("7.tmp"), "half").unwrap();
    fs::write(folder.join("ab/strange"), "x").unwrap();
    let (path, bytes) = bed.put("part-a", MIB).await;
    assert_eq!(bed.cache.get_range(&path, 0..10).await.unwrap(), range(&bytes, 0..10));
    assert!(!folder.join("7.tmp").exists() && !folder.join("ab/strange").exists());

    let mut bed = Bed::new(64 * MIB);
    fs::write(bed.folder.path().join("cache"), "a file where the folder should be").unwrap();
    let (path, bytes) = bed.put("part-a", MIB).await;
    for _ in 0..2 {
        assert_eq!(bed.cache.get_range(&path, 0..10).await.unwrap(), range(&bytes, 0..10));
        assert_eq!(bed.reads(), 1);
    }
    assert_eq!(bed.cache.blocks().stats(), CacheStats { hits: 0, misses: 2, bytes: 0 });
    bed.reopen(64 * MIB);
}

#[tokio::test]
async fn another_store_with_the_same_path_is_another_file() {
    let bed = Bed::new(64 * MIB);
    let (path, bytes) = bed.put("part-a", KIB).await;
    assert_eq!(bed.cache.get_range(&path, 0..9).await.unwrap(), range(&bytes, 0..9));
    let store = Arc::new(InMemory::new());
    store.put(&path, "elsewhere".into()).await.unwrap();
    let other = DiskCache::new(store, bed.folder.path().join("cache"), "there", 64 * MIB);
    assert_eq!(other.get_range(&path, 0..9).await.unwrap(), "elsewhere");
}
