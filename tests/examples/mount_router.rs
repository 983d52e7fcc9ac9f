//! Serves gatelog's HTTP API within another axum application.
//!
//! Run it with `cargo run --example mount_router`, then send records as to `gatelog serve`:
//!
//! ```sh
//! curl -H "authorization: Bearer $KEY" -d '{"ai_model":"gpt-4o"}' http://127.0.0.1:3000/v1/ingest
//! ```

#![allow(clippy::print_stdout, reason = "an example shows its results")]

use axum::Router;
use axum::routing::get;
use gatelog::{Config, Engine};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let data = "gatelog-data".to_owned();
    let engine = Engine::open(Config { data, ..Config::default() }).await?;
    // The first start creates the key of the administrator and shows it once.
    if let Some(key) = engine.ensure_admin_key().await? {
        println!("admin key: {key}");
    }

    let app = Router::new()
        .route("/hello", get(|| async { "hello from the application" }))
        .fallback_service(gatelog::http::router(engine.clone()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    let stop = async {
        let _ = tokio::signal::ctrl_c().await;
    };
    axum::serve(listener, app).with_graceful_shutdown(stop).await?;

    engine.close().await?;
    Ok(())
}
