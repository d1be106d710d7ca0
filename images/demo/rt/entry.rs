//! The only code that runs at CPL 0: the entry, the interrupt stubs and what application
//! processors execute. Everything else runs at CPL 3, because a KVM
//! without hardware virtualization runs that natively and emulates CPL 0 one instruction at a time.
//! Ports are open to CPL 3 by the TSS's bitmap (Intel SDM vol. 1, 19.5.2); such a KVM has no IOPL.

use core::arch::global_asm;

global_asm!(
    r#"
.section .text.entry, "ax"
.code64
.globl _start
_start:
    /* The very first instruction is an I/O: what a VMM's first-instruction benchmark waits for.
     * Port 0x80 is the PC's POST code port, which nobody answers. */
    outb    %al, $0x80
    cli
    movabs  $pml4, %rax
    mov     %rax, %cr3
    lgdt    gdtr(%rip)
    lidt    idtr(%rip)
    mov     %cr0, %rax
    and     $~0xc, %eax             /* clear EM and TS */
    or      $0x22, %eax             /* set MP and NE */
    mov     %rax, %cr0
    mov     %cr4, %rax
    or      $0x600, %eax            /* OSFXSR, OSXMMEXCPT: the compiler uses SSE2 */
    mov     %rax, %cr4
    lea     tss(%rip), %rax
    mov     %ax, gdt + 0x42(%rip)
    shr     $16, %eax
    mov     %al, gdt + 0x44(%rip)
    mov     %ah, gdt + 0x47(%rip)
    lea     interrupt_stack_top(%rip), %rax
    mov     %rax, tss + 4(%rip)     /* RSP0 */
    movw    $104, tss + 102(%rip)   /* where the I/O permission bitmap begins */
    movb    $0xff, tss_end - 8(%rip)
    mov     $0x40, %eax
    ltr     %ax
    mov     $0x2b, %eax
    mov     %eax, %ds
    mov     %eax, %es
    mov     %rsi, %rdi              /* boot_params, the first argument of guest_start */
    lea     user_stack_top - 8(%rip), %rdx
    push    $0x2b
    push    %rdx
    push    $0x202                  /* IF */
    push    $0x33
    lea     guest_start(%rip), %rdx
    push    %rdx
    iretq

/* Interrupt of GSI n: 16 bytes each, count it and tell the local APIC. */
.balign 16
.globl irq_stubs
irq_stubs:
.set n, 0
.rept 24
    incq    irq_counts + 8 * n(%rip)
    jmp     irq_end
    .balign 16
    .set n, n + 1
.endr
irq_end:
    push    %rax
    mov     $0xfee000b0, %eax       /* EOI register */
    movl    $0, (%rax)
    pop     %rax
    iretq

/* #GP. CPL 3 asks for what only CPL 0 can do with `hlt` and a number in eax, which is this exception;
 * a `syscall` would not get through a KVM without hardware virtualization. */
.balign 16
general_protection:
    push    %rax
    mov     16(%rsp), %rax          /* rip */
    cmpb    $0xf4, (%rax)           /* hlt */
    pop     %rax
    jne     2f
    cmp     $1, %eax
    je      triple_fault
    cmp     $3, %eax
    je      send
    ja      receive
    cmp     $2, %eax
    je      stop
    /* 0: halt unless the counter at rdi is no longer rsi. `sti` holds interrupts off for one
     * instruction more, so none gets lost between the comparison and the halt. */
    cmp     %rsi, (%rdi)
    jne     done
    sti
    hlt
    cli
done:
    incq    8(%rsp)                 /* go on behind the hlt */
    add     $8, %rsp                /* error code */
    iretq
2:  push    $13
    jmp     exception

/* 1: no interrupt table and an exception, that is, a triple fault. */
triple_fault:
    lidt    no_idt(%rip)
    ud2

/* 3: send rcx bytes from rsi to port dx. A port access costs a third of what it costs at CPL 3. */
send:
    lodsb
    out     %al, %dx
    loop    send
    jmp     done

/* 4: receive up to rcx bytes from COM1 to rdi, as many as wait there. */
receive:
    mov     $0x3fd, %edx
    in      %dx, %al
    test    $1, %al
    jz      done
    mov     $0x3f8, %edx
    in      %dx, %al
    stosb
    loop    receive
    jmp     done

/* 2: stop this processor for good. */
stop:
    cli
    hlt
    jmp     stop

/* Exceptions: note what happened and return to CPL 3, where it is reported. */
.balign 16
.globl exception_stubs
exception_stubs:
.set n, 0
.rept 32
    .if n == 13
    jmp     general_protection
    .elseif (n == 8) || (n == 10) || (n == 11) || (n == 12) || (n == 14) || (n == 17) || (n == 21) || (n == 29) || (n == 30)
    nop
    nop
    .else
    push    $0
    .endif
    push    $n
    jmp     exception
    .balign 16
    .set n, n + 1
.endr
exception:
    pop     exception_record(%rip)
    pop     exception_record + 8(%rip)
    mov     (%rsp), %rax
    mov     %rax, exception_record + 16(%rip)
    mov     %cr2, %rax
    mov     %rax, exception_record + 24(%rip)
    lea     guest_exception(%rip), %rax
    mov     %rax, (%rsp)
    movq    $0x33, 8(%rsp)
    lea     user_stack_top - 8(%rip), %rax
    mov     %rax, 24(%rsp)
    movq    $0x2b, 32(%rsp)
    iretq

/* What an application processor executes; copied to AP_START, whose page number is the SIPI vector
 * (Intel SDM vol. 3, 10.4.4.1). Real mode straight to long mode, count it, stop; or count on. */
.set AP_START, 0x1000
.globl ap_start, ap_end
.code16
ap_start:
    cli
    xor     %ax, %ax
    mov     %ax, %ds
    lgdtl   AP_START + (ap_gdtr - ap_start)
    mov     $0x20, %eax             /* PAE */
    mov     %eax, %cr4
    mov     $pml4, %eax
    mov     %eax, %cr3
    mov     $0xc0000080, %ecx       /* EFER.LME */
    rdmsr
    or      $0x100, %eax
    wrmsr
    mov     %cr0, %eax
    or      $0x80000001, %eax       /* PG, PE */
    mov     %eax, %cr0
    ljmpl   $0x10, $ap_long
ap_gdtr:
    .word   gdt_end - gdt - 1
    .long   gdt
ap_end:
.code64
ap_long:
    mov     $1, %eax
    lock xadd %rax, aps_online(%rip)
    cmpq    $0, aps_count(%rip)
    je      stop
    /* Count, in a register and in memory, until the two differ: then a step was lost. */
    lea     ap_counts(%rip), %rbx
    xor     %edx, %edx
ap_loop:
    cmp     %rdx, (%rbx, %rax, 8)
    jne     ap_lost
    inc     %rdx
    mov     %rdx, (%rbx, %rax, 8)
    pause
    jmp     ap_loop
ap_lost:
    movq    $-1, (%rbx, %rax, 8)
    jmp     stop

.section .data.pages, "aw"
.balign 4096
/* Identity map of the first 4 GiB: present, writable, user, accessed, dirty. Entries for RAM above
 * are added at run time. */
.globl pml4, pdpt
pml4:
    .quad   pdpt + 0x27
    .zero   4088
pdpt:
    .quad   pds + 0x27, pds + 0x1027, pds + 0x2027, pds + 0x3027
    .zero   4064
pds:
.set n, 0
.rept 2048
    .quad   (n << 21) + 0xe7
    .set n, n + 1
.endr
/* The selectors are Linux's: a KVM in software may know no others at CPL 3. */
gdt:
    .quad   0, 0
    .quad   0x00af9b000000ffff      /* 0x10 code, CPL 0 */
    .quad   0x00cf93000000ffff      /* 0x18 data, CPL 0 */
    .quad   0x00cffb000000ffff      /* 0x20 code, 32-bit, CPL 3 */
    .quad   0x00cff3000000ffff      /* 0x28 data, CPL 3 */
    .quad   0x00affb000000ffff      /* 0x30 code, CPL 3 */
    .quad   0
    .quad   0x0000890000000000 + (tss_end - tss - 8), 0   /* 0x40 the TSS; _start puts its address in */
gdt_end:
gdtr:
    .word   gdt_end - gdt - 1
    .quad   gdt
idtr:
    .word   4095
    .quad   idt
no_idt:
    .word   0
    .quad   0
.section .bss, "aw", @nobits
.balign 4096
.globl idt, irq_counts, aps_online, aps_count, ap_counts, exception_record
idt:
    .zero   4096
irq_counts:
    .zero   24 * 8
aps_online:
    .zero   8
aps_count:
    .zero   8
ap_counts:
    .zero   64 * 8
exception_record:
    .zero   32
tss:
    .zero   104
    .zero   65536 / 8               /* I/O permission bitmap: CPL 3 may use every port */
    .zero   8                       /* and a byte of ones */
tss_end:
.balign 16
    .zero   4096
interrupt_stack_top:
    .zero   131072
user_stack_top:
"#,
    options(att_syntax)
);
