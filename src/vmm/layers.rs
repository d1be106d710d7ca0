//! The disks' files, changed under a running guest at the request of the launcher.

use crate::block::{self, Disk, FileDisk, LayersStatus};
use crate::control::{DiskLayers, DiskTop, Request, Response};
use crate::vmm::machine::Machine;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

/// Answer [`Request::Layers`], [`Request::Freeze`] or [`Request::Rebase`].
pub fn answer(machine: &Machine, request: &Request, fds: Vec<OwnedFd>) -> Response {
    let answered = match request {
        Request::Layers {} => machine
            .disks()
            .map(|disk| Ok((disk.id.clone(), reported(disk.disk.layers()?))))
            .collect::<io::Result<_>>()
            .map(|disks| Response::Layers { disks }),
        Request::Freeze { disks: tops } => freeze(machine, tops, fds),
        Request::Rebase { disk, format } => find(machine, disk).and_then(|disk| {
            let [base] = <[OwnedFd; 1]>::try_from(fds)
                .map_err(|_| wrong("one descriptor has to come with it"))?;
            disk.rebase(File::from(base), *format).map(|()| Response::Ok {})
        }),
        _ => Err(wrong("it is about no disk")),
    };
    answered.unwrap_or_else(|error| Response::Error { message: error.to_string() })
}

fn reported(status: LayersStatus) -> DiskLayers {
    let sealed = status.sealed == Ok(true);
    DiskLayers { top: status.top, layers: status.layers, sealed, error: status.sealed.err() }
}

fn wrong(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

fn find<'a>(machine: &'a Machine, wanted: &DiskTop) -> io::Result<&'a FileDisk> {
    let disk = machine.disk(&wanted.disk);
    let disk = disk.ok_or_else(|| wrong(&format!("there is no disk {}", wanted.disk)))?;
    if disk.layers()?.top != wanted.top {
        return Err(wrong("the disk writes to another file; look again"));
    }
    Ok(disk)
}

/// All that takes time is done before the first disk stands still.
fn freeze(machine: &Machine, tops: &[DiskTop], fds: Vec<OwnedFd>) -> io::Result<Response> {
    let twice = |n: usize, top: &DiskTop| tops[..n].iter().any(|other| other.disk == top.disk);
    if tops.len() != fds.len() || tops.iter().enumerate().any(|(n, top)| twice(n, top)) {
        return Err(wrong("each disk has to be named once, with one descriptor"));
    }
    let prepare = |(top, fd): (&DiskTop, OwnedFd)| find(machine, top)?.prepare_swap(File::from(fd));
    let swaps = tops.iter().zip(fds).map(prepare).collect::<io::Result<Vec<_>>>()?;
    let pause = block::swap_all(swaps)?;
    for disk in machine.disks().filter(|disk| tops.iter().any(|top| top.disk == disk.id)) {
        disk.device.grow(disk.disk.size());
    }
    Ok(Response::Frozen { pause_us: u64::try_from(pause.as_micros()).unwrap_or(u64::MAX) })
}
