//! `gatelog serve`: opens the engine, listens, and shuts down in order on a signal.
//!
//! The first SIGINT or SIGTERM lets requests in progress finish and flushes. A second one ends the
//! process at once, which loses no acknowledged record.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::net::TcpListener;

use super::exit::Done;
use super::output::{file_error, say};
use super::settings::Context;
use gatelog::config::Secret;
use gatelog::engine::Engine;
use gatelog::error::{Error, Result};
use gatelog::http;

/// Runs the server: ingests records, answers SQL and reports, and streams exports over HTTP
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  gatelog serve --data /var/lib/gatelog --listen 0.0.0.0:8080
  GATELOG_ADMIN_KEY=... gatelog serve --data s3://my-bucket/gatelog
  gatelog serve --listen 127.0.0.1:0 --address-file address.txt

The first start in a folder makes the admin key and prints it once, unless `admin_key` is set. \
Ctrl-C or SIGTERM: finishes running requests, flushes memory to the table and exits. Twice: exits at once.")]
pub(super) struct Args {
    /// Address and port; port 0 takes a free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// File to which the bound address is written once the server listens
    #[arg(long, value_name = "FILE")]
    address_file: Option<PathBuf>,
}

pub(super) async fn run(mut context: Context, args: Args) -> Result<Done> {
    if let Some(listen) = &args.listen {
        context.set_flag("listen", listen)?;
    }
    // Bound before the engine opens: a port in use is reported at once, not after minutes of
    // replay.
    let listener = bind(&context.config().listen).await?;
    check_admin_key(&context.config().admin_key, listener.local_addr()?)?;
    let engine = context.open_writer("name another folder with `--data`", true).await?;
    let greet = |_, key: Option<&str>| {
        // Printed even with `--quiet`, since the key is shown only this once.
        if let Some(key) = key {
            say!("admin key, shown only now:\n  export GATELOG_KEY={key}");
        }
    };
    serve(&context, engine, listener, args.address_file.as_deref(), greet).await
}

/// Shortest admin key in characters for a server that is reachable from other machines.
const MIN_KEY: usize = 16;

/// Refuses an admin key that can be guessed, unless the address is reachable from this machine
/// only.
fn check_admin_key(key: &Secret, address: SocketAddr) -> Result<()> {
    let characters = key.0.chars().count();
    match characters {
        1..MIN_KEY if !address.ip().is_loopback() => Err(Error::invalid(format!(
            "setting `admin_key` has {characters} characters; expected at least {MIN_KEY} on `{address}`, which other \
             machines can reach; generate one with `openssl rand -hex 24`, or leave the setting out to let the first \
             start generate one"
        ))),
        _ => Ok(()),
    }
}

/// Binds the configured address.
pub(super) async fn bind(listen: &str) -> Result<TcpListener> {
    TcpListener::bind(listen).await.map_err(|cause| {
        let message = format!("cannot listen on `{listen}`");
        match cause.kind() {
            std::io::ErrorKind::AddrInUse => {
                Error::busy(format!("{message}; name another address with `--listen`"))
            }
            std::io::ErrorKind::PermissionDenied => Error::denied(format!(
                "{message}; use a port above 1023, or run with the privilege for lower ports"
            )),
            _ => Error::invalid(format!("{message}; expected ADDRESS:PORT such as 127.0.0.1:8080")),
        }
        .with_source(cause)
    })
}

/// Serves until a signal arrives, then closes the engine. `greet` gets the address and a newly
/// created admin key.
pub(super) async fn serve(
    context: &Context,
    engine: Engine,
    listener: TcpListener,
    address_file: Option<&Path>,
    greet: impl FnOnce(SocketAddr, Option<&str>),
) -> Result<Done> {
    let address = listener.local_addr()?;
    if !context.quiet {
        say!(
            "gatelog {} serves http://{address} from {}",
            env!("CARGO_PKG_VERSION"),
            context.config().data
        );
        say!("{}", engine.config().memory_line());
    }
    greet(address, engine.ensure_admin_key().await?.as_deref());
    if let Some(path) = address_file {
        write_address(path, address)?;
    }
    // The server closes the engine as the last step of its shutdown.
    http::serve(engine, listener, stop_signal()).await?;
    Ok(Done::Success)
}

/// Writes the address to a file that is renamed into place, so that a reader never sees a part of
/// it.
fn write_address(path: &Path, address: SocketAddr) -> Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    std::fs::write(&partial, format!("{address}\n"))
        .and_then(|()| std::fs::rename(&partial, path))
        .map_err(|cause| file_error("write", path, cause))
}

/// Completes with the first signal. From then on the next signal ends the process.
async fn stop_signal() {
    let name = signal().await;
    say!("{name}: shutting down; send the signal again to stop at once");
    tokio::spawn(async {
        signal().await;
        #[expect(clippy::exit, reason = "the second signal asks for exactly this")]
        std::process::exit(130);
    });
}

#[cfg(unix)]
async fn signal() -> &'static str {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        let _ = tokio::signal::ctrl_c().await;
        return "interrupt";
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => "interrupt",
        _ = terminate.recv() => "terminate",
    }
}

#[cfg(not(unix))]
async fn signal() -> &'static str {
    let _ = tokio::signal::ctrl_c().await;
    "interrupt"
}
