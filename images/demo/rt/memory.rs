//! Memory: an allocator that only grows, pages for devices, and the routines that the compiler
//! calls.

use core::alloc::{GlobalAlloc, Layout};
use core::sync::atomic::{AtomicUsize, Ordering};

unsafe extern "C" {
    static _end: u8;
}

/// RAM below 4 GiB on every machine: 16 MiB. [`extend`] makes it more.
static LIMIT: AtomicUsize = AtomicUsize::new(16 << 20);
/// Next free byte; 0 before first use.
static NEXT: AtomicUsize = AtomicUsize::new(0);

struct Bump;

#[global_allocator]
static ALLOCATOR: Bump = Bump;

// SAFETY: every block is handed out once, inside RAM above the program.
unsafe impl GlobalAlloc for Bump {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let next = match NEXT.load(Ordering::Relaxed) {
            0 => &raw const _end as usize,
            next => next,
        };
        let start = next.next_multiple_of(layout.align());
        if start + layout.size() > LIMIT.load(Ordering::Relaxed) {
            return core::ptr::null_mut();
        }
        NEXT.store(start + layout.size(), Ordering::Relaxed);
        start as *mut u8
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // The last block goes back, which is all that formatting lines and growing vectors needs.
        if block as usize + layout.size() == NEXT.load(Ordering::Relaxed) {
            NEXT.store(block as usize, Ordering::Relaxed);
        }
    }
}

/// RAM is contiguous up to `end`.
pub fn extend(end: u64) {
    LIMIT.fetch_max(end.min(1 << 32) as usize, Ordering::Relaxed);
}

/// Bytes that can still be allocated.
pub fn left() -> usize {
    LIMIT.load(Ordering::Relaxed) - NEXT.load(Ordering::Relaxed)
}

/// Whole pages of zeros, which stay allocated. The address in memory is the physical one.
pub fn pages(count: usize) -> &'static mut [u8] {
    let layout = Layout::from_size_align(count * 4096, 4096).expect("a sane size");
    // SAFETY: the layout is not empty; the block is fresh and never freed.
    unsafe {
        let block = alloc::alloc::alloc(layout);
        assert!(!block.is_null(), "out of memory: {count} pages");
        block.write_bytes(0, layout.size());
        core::slice::from_raw_parts_mut(block, layout.size())
    }
}

/// What `core` expects of every platform, by the instructions made for it.
mod routines {
    use core::arch::asm;
    use core::ffi::{c_char, c_void};

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcpy(to: *mut c_void, from: *const c_void, len: usize) -> *mut c_void {
        // SAFETY: the caller's promise is memcpy's contract.
        unsafe {
            asm!("rep movsb", inout("rcx") len => _, inout("rdi") to => _, inout("rsi") from => _)
        }
        to
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memmove(to: *mut c_void, from: *const c_void, len: usize) -> *mut c_void {
        if (to as usize).wrapping_sub(from as usize) >= len {
            // SAFETY: ascending is right when `to` is not inside the source.
            return unsafe { memcpy(to, from, len) };
        }
        // SAFETY: descending is right when it is.
        unsafe {
            asm!("std", "rep movsb", "cld", inout("rcx") len => _,
                inout("rdi") to.add(len - 1) => _, inout("rsi") from.add(len - 1) => _);
        }
        to
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memset(to: *mut c_void, byte: i32, len: usize) -> *mut c_void {
        // SAFETY: the caller's promise is memset's contract.
        unsafe {
            asm!("rep stosb", inout("rcx") len => _, inout("rdi") to => _, in("al") byte as u8)
        }
        to
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn memcmp(a: *const c_void, b: *const c_void, len: usize) -> i32 {
        let (a, b) = (a.cast::<u8>(), b.cast::<u8>());
        for n in 0..len {
            // SAFETY: the caller's promise is memcmp's contract.
            let (x, y) = unsafe { (a.add(n).read_volatile(), b.add(n).read_volatile()) };
            if x != y {
                return i32::from(x) - i32::from(y);
            }
        }
        0
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn bcmp(a: *const c_void, b: *const c_void, len: usize) -> i32 {
        // SAFETY: the same contract.
        unsafe { memcmp(a, b, len) }
    }

    #[unsafe(no_mangle)]
    unsafe extern "C" fn strlen(text: *const c_char) -> usize {
        // SAFETY: the caller promises a NUL.
        (0..).find(|&n| unsafe { text.add(n).read_volatile() } == 0).unwrap_or(0)
    }

    /// Named by the precompiled `core`, never called: this program does not unwind.
    #[unsafe(no_mangle)]
    extern "C" fn rust_eh_personality() {}
    /// Likewise.
    #[unsafe(no_mangle)]
    extern "C" fn _Unwind_Resume() {}
}
