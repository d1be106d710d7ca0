//! The thread that makes flushes durable while queues go on.

use super::state::{CommitRequest, Current, Work};
use std::io;
use std::sync::Weak;
use std::sync::mpsc::Receiver;

/// Serve flushes until the disk and all of its queues are gone.
pub(super) fn serve(current: &Weak<Current>, work: &Receiver<Work>) {
    while let Ok(first) = work.recv() {
        let Some(current) = current.upgrade() else { return };
        // One commit answers all that had asked before it began.
        let batch: Vec<_> = std::iter::once(first).chain(work.try_iter()).collect();
        let shared = current.get();
        if batch.iter().any(|work| matches!(work, Work::Flush(_))) {
            let result = shared.flush();
            for work in &batch {
                let Work::Flush(CommitRequest { token, answers }) = work else { continue };
                let mut done = answers.done.lock().unwrap();
                done.push((*token, copy(&result)));
                // The counter can't overflow: it is read whenever the queue's thread wakes.
                let _ = answers.event.write(1);
            }
        }
        // What failed before is tried again with each flush.
        shared.seal_previous();
        for work in batch {
            if let Work::Close(answer) = work {
                // Whoever asked may have given up.
                let _ = answer.try_send(shared.close());
            }
        }
    }
}

/// `io::Error` can't be cloned; its number and text can.
fn copy(result: &io::Result<()>) -> io::Result<()> {
    result.as_ref().map(|_| ()).map_err(|e| match e.raw_os_error() {
        Some(number) => io::Error::from_raw_os_error(number),
        None => io::Error::new(e.kind(), e.to_string()),
    })
}
