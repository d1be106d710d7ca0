# A stand-in kernel: says on COM1 which it is, its command line and its initial ramdisk, and ends QEMU.
# Entered as the 32-bit boot protocol says, with boot_params in %esi; or by its setup code, in real mode, which
# has the same fields in front of it. (Documentation/arch/x86/boot.rst)
.section .setup, "ax"
.code16
setup:	cli				# at 0x268 of the file
	cld
	mov $0x92, %dx			# the A20 gate is open
	in %dx, %al
	or $2, %al
	and $0xfe, %al
	out %al, %dx
	xor %ebx, %ebx
	mov %cs, %bx
	sub $0x20, %bx
	shl $4, %ebx			# where the file's first byte is
	mov %cs, %ax
	mov %ax, %ds
	lea (0x268 + gdt - setup)(%ebx), %eax
	mov %eax, (0x68 + table - setup + 2)
	lgdtl (0x68 + table - setup)
	mov %cr0, %eax
	or $1, %al
	mov %eax, %cr0
	mov $0x18, %ax
	mov %ax, %ds
	mov %ax, %es
	mov %ax, %ss
	mov %ebx, %esi
	ljmpl $0x10, $0x100000
	.balign 8
gdt:	.quad 0, 0
	.quad 0x00cf9a000000ffff	# 0x10: code
	.quad 0x00cf92000000ffff	# 0x18: data
table:	.word table - gdt - 1
	.long 0

.text
.code32
start:
	cld
	call 1f
1:	pop %ebp
	sub $(1b - start), %ebp
	lea 0x7000(%ebp), %esp
	mov %esi, %ebx
	lea (kernel - start)(%ebp), %esi
	call print
	lea 0x7800(%ebp), %esi		# which it is: the test writes it there
	call print
	lea (line - start)(%ebp), %esi
	call print
	mov 0x228(%ebx), %esi		# cmd_line_ptr
	call print
	lea (ramdisk - start)(%ebp), %esi
	call print
	mov 0x218(%ebx), %esi		# ramdisk_image
	mov 0x21c(%ebx), %ecx		# ramdisk_size
	cmp $4096, %ecx
	jbe 2f
	mov $4096, %ecx
2:	jecxz 4f
	lodsb
	dec %ecx
	test %al, %al			# what parts are filled up with
	jz 2b
	call put
	jmp 2b
4:	lea (end - start)(%ebp), %esi
	call print
	mov $0xf4, %dx			# isa-debug-exit
	xor %eax, %eax
	out %eax, %dx
5:	hlt
	jmp 5b

print:	lodsb
	test %al, %al
	jz 6f
	call put
	jmp print
6:	ret

put:	mov %al, %ah
	mov $0x3fd, %dx			# line status
7:	in %dx, %al
	test $0x20, %al
	jz 7b
	mov $0x3f8, %dx
	mov %ah, %al
	out %al, %dx
	ret

kernel:	.asciz "\nKERNEL "
line:	.asciz "\nLINE "
ramdisk: .asciz "\nRAMDISK "
end:	.asciz "\nEND\n"
