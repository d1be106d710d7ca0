//! Keeping a process small that is one of many clones.

/// musl's own allocator asks the kernel for nearly every page, and a VMM's start would wait for
/// that.
#[cfg(target_env = "musl")]
mod allocator {
    use dlmalloc::Dlmalloc;
    use std::alloc::{GlobalAlloc, Layout};
    use std::sync::{Mutex, MutexGuard, PoisonError};

    /// The crate's own (`GlobalDlmalloc`) takes a lock of the C library's, for longer than it
    /// allocates.
    struct Locked(Mutex<Dlmalloc>);

    #[global_allocator]
    static ALLOCATOR: Locked = Locked(Mutex::new(Dlmalloc::new()));

    impl Locked {
        /// Nothing panics while it holds this.
        fn lock(&self) -> MutexGuard<'_, Dlmalloc> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    // SAFETY: dlmalloc gives what GlobalAlloc promises; the lock lets in one thread at a time.
    unsafe impl GlobalAlloc for Locked {
        // SAFETY: the caller keeps the contract, which is dlmalloc's too.
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            // SAFETY: as above.
            unsafe { self.lock().malloc(layout.size(), layout.align()) }
        }

        // SAFETY: the caller keeps the contract, which is dlmalloc's too.
        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            // SAFETY: as above.
            unsafe { self.lock().free(block, layout.size(), layout.align()) }
        }

        // SAFETY: the caller keeps the contract, which is dlmalloc's too.
        unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
            // SAFETY: as above.
            unsafe { self.lock().calloc(layout.size(), layout.align()) }
        }

        // SAFETY: the caller keeps the contract, which is dlmalloc's too.
        unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
            // SAFETY: as above.
            unsafe { self.lock().realloc(block, layout.size(), layout.align(), size) }
        }
    }
}

/// Let all threads allocate from one arena: an arena a thread costs each clone memory and time, and
/// no thread of a VMM allocates often. Call it before threads start.
pub fn one_allocation_arena() {
    // SAFETY: mallopt(3) takes two integers. Other C libraries have one arena anyway.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1)
    };
}

/// Bytes of a stack below the caller that [`forget_stack`] gives back. Every thread of a VMM has
/// more left at that point.
const DEEPEST: usize = 64 << 10;

/// Gives the pages of the calling thread's stack back that lie below its caller: starting and
/// compiling a filter goes deeper than the thread ever goes again. Call it from a thread that has
/// [`DEEPEST`] bytes of its stack left.
#[inline(never)]
pub fn forget_stack() {
    let page = 4096;
    let here = 0u8;
    // This function's own frame, and what calls into the C library from it, fits into the two pages
    // that stay.
    let end = (&raw const here).addr() / page * page - page;
    // SAFETY: the range is below this frame and its callee's in the thread's own stack, where
    // nothing is kept: a stack grows down, and each page comes back as zeros when it is used again.
    // Where the main thread's stack has not grown as far, the call ends with ENOMEM at the gap that
    // the kernel keeps below it. (madvise(2), mmap_min_addr's stack_guard_gap)
    unsafe { libc::madvise((end - DEEPEST) as *mut libc::c_void, DEEPEST, libc::MADV_DONTNEED) };
}

/// Unmap the program's code; what runs on comes back from the page cache by itself. The kernel maps
/// around every fault, so that after its start a process has nearly the whole program mapped, of
/// which it will use a tenth.
pub fn forget_code() {
    // SAFETY: the linker defines both symbols as bytes of the program; only their addresses are
    // taken.
    unsafe extern "C" {
        /// The program's first byte, and the first after its code: the linker's symbols. (ld(1),
        /// PROVIDE)
        static __executable_start: u8;
        static etext: u8;
    }
    let page = 4096;
    let start = (&raw const __executable_start).addr();
    let end = (&raw const etext).addr() / page * page;
    if !start.is_multiple_of(page) || end <= start {
        return;
    }
    // SAFETY: the range is the program's headers and code, mapped privately from its file,
    // read-only and never written (relocations touch data only): dropped pages come back as they
    // were. (madvise(2))
    unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Resident bytes of the mapping that `address` is in.
    fn resident(address: usize) -> usize {
        let text = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut within = false;
        for line in text.lines() {
            let hex = |text: &str| usize::from_str_radix(text, 16).ok();
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            if let Some((start, end)) = range.and_then(|(a, b)| Some((hex(a)?, hex(b)?))) {
                within = (start..end).contains(&address);
            } else if let (true, Some(rest)) = (within, line.strip_prefix("Rss:")) {
                let kib: usize = rest.trim().trim_end_matches(" kB").parse().unwrap();
                return kib << 10;
            }
        }
        panic!("{address:x} is in no mapping");
    }

    #[inline(never)]
    fn go_deep() -> u8 {
        let deep = std::hint::black_box([1u8; 48 << 10]);
        deep[std::hint::black_box(7)]
    }

    #[test]
    fn what_a_stack_no_longer_needs_is_given_back() {
        let work = || {
            let kept = std::hint::black_box([7u8; 64]);
            go_deep();
            let address = kept.as_ptr().addr();
            let before = resident(address);
            go_deep();
            forget_stack();
            let after = resident(address);
            assert!(kept.iter().all(|byte| *byte == 7));
            (before, after)
        };
        // Large, so that reading smaps itself is little of it.
        let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(work).unwrap();
        let (before, after) = thread.join().unwrap();
        assert!(after + (24 << 10) <= before, "{before} {after}");
    }
}
