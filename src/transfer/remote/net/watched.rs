//! Waiting for the network as long as nobody asks to stop.

use crate::context::Cancel;
use crate::transfer::download::transport::Trouble;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::time::timeout;

/// How often it is looked whether somebody has asked to stop.
const TICK: Duration = Duration::from_millis(100);

/// Drives what `future` does to its end.
///
/// # Errors
/// Somebody asked to stop before.
pub(super) fn watched<T>(
    runtime: &Runtime,
    cancel: &Cancel,
    future: impl Future<Output = T>,
) -> Result<T, Trouble> {
    runtime.block_on(async {
        let mut future = pin!(future);
        loop {
            if cancel.requested() {
                return Err(Trouble::Cancelled);
            }
            if let Ok(done) = timeout(TICK, &mut future).await {
                return Ok(done);
            }
        }
    })
}
