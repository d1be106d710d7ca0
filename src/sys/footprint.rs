//! Keeping a process small that is one of many clones.

/// musl's own allocator asks the kernel for nearly every page, and a VMM's start would wait for that.
#[cfg(target_env = "musl")]
mod allocator {
    use dlmalloc::Dlmalloc;
    use std::alloc::{GlobalAlloc, Layout};
    use std::sync::{Mutex, MutexGuard, PoisonError};

    /// The crate's own (`GlobalDlmalloc`) takes a lock of the C library's, for longer than it allocates.
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

/// Let all threads allocate from one arena: an arena a thread costs each clone memory and time, and no
/// thread of a VMM allocates often. Call it before threads start.
pub fn one_allocation_arena() {
    // SAFETY: mallopt(3) takes two integers. Other C libraries have one arena anyway.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1)
    };
}

/// Unmap the program's code; what runs on comes back from the page cache by itself. The kernel maps around
/// every fault, so that after its start a process has nearly the whole program mapped, of which it will
/// use a tenth.
pub fn forget_code() {
    // SAFETY: the linker defines both symbols as bytes of the program; only their addresses are taken.
    unsafe extern "C" {
        /// The program's first byte, and the first after its code: the linker's symbols. (ld(1), PROVIDE)
        static __executable_start: u8;
        static etext: u8;
    }
    let page = 4096;
    let start = (&raw const __executable_start).addr();
    let end = (&raw const etext).addr() / page * page;
    if !start.is_multiple_of(page) || end <= start {
        return;
    }
    // SAFETY: the range is the program's headers and code, mapped privately from its file, read-only and
    // never written (relocations touch data only): dropped pages come back as they were. (madvise(2))
    unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_DONTNEED) };
}
