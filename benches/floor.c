/* The least that any VMM does on this host before its guest's first I/O: the KVM calls of a machine with one vCPU and
 * interrupt controllers, in the order that is fastest, and nothing else. scripts/bench starts it as it starts Spore's
 * VMM; descriptor 9 is told when the guest has exited for an I/O. (Documentation/virt/kvm/api.rst) */
#include <fcntl.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define RAM (128UL << 20)

static struct {
	struct kvm_cpuid2 head;
	struct kvm_cpuid_entry2 entries[256];
} cpuid = { .head.nent = 256 };

int main(void)
{
	/* mov $0x41,%al; out %al,$0x80; hlt */
	static const char guest[] = { 0xb0, 0x41, 0xe6, 0x80, 0xf4 };
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	int vm = ioctl(kvm, KVM_CREATE_VM, 0);
	unsigned long identity_map = 0xfffbc000;
	char *ram = mmap(0, RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	struct kvm_userspace_memory_region region = { .memory_size = RAM, .userspace_addr = (unsigned long)ram };
	struct kvm_regs regs = { .rip = 0x1000, .rflags = 2 };
	struct kvm_sregs sregs;
	struct kvm_run *run;
	struct timespec time;
	long long now;
	int vcpu;

	memcpy(ram + 0x1000, guest, sizeof(guest));
	ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000UL);
	ioctl(vm, KVM_SET_IDENTITY_MAP_ADDR, &identity_map);
	ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region);
	ioctl(vm, KVM_CREATE_IRQCHIP, 0);
	vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	run = mmap(0, ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	ioctl(kvm, KVM_GET_SUPPORTED_CPUID, &cpuid);
	ioctl(vcpu, KVM_SET_CPUID2, &cpuid);
	ioctl(vcpu, KVM_GET_SREGS, &sregs);
	sregs.cs.base = sregs.cs.selector = 0;
	ioctl(vcpu, KVM_SET_SREGS, &sregs);
	ioctl(vcpu, KVM_SET_REGS, &regs);
	if (ioctl(vcpu, KVM_RUN, 0) || run->exit_reason != KVM_EXIT_IO)
		return 1;
	clock_gettime(CLOCK_MONOTONIC, &time);
	now = time.tv_sec * 1000000000LL + time.tv_nsec;
	return write(9, &now, sizeof(now)) != sizeof(now);
}
