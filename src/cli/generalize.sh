# What a guest runs before an image is made of it, as root: it forgets what makes it this machine, and begins anew at
# its next boot, as do all that are launched from the image. The one line that it prints says how it went.
set -eu

# What is missing is no error; what can't be removed is one.
trap 'test $? = 0 || echo "spore: a step failed, and those before it are done"' EXIT

# Whether a directory is another machine's: a shared one, or of a server's. By numbers, which every stat(1) prints.
# (linux/magic.h: FUSE and virtiofs, 9P, NFS, SMB, SMB2, CIFS, AFS, Ceph)
theirs() {
	case $(stat -f -c %t "$1" 2>/dev/null) in
	65735546 | 1021997 | 6969 | 517b | fe534d42 | ff534d42 | 5346414f | c36400) return 0 ;;
	*) return 1 ;;
	esac
}

# Removes what is in a directory of this machine's, and in nothing that is mounted below.
empty() {
	[ ! -d "$1" ] || theirs "$1" || find "$1" -xdev -mindepth 1 ! -type d -exec rm -f {} +
}

# Host keys: where none are left, who makes them at the next boot?
if [ -d /run/systemd/system ]; then
	if [ -x /usr/bin/ssh-keygen ]; then
		cat >/etc/systemd/system/ssh-host-keys.service <<'END'
[Unit]
Description=Make SSH host keys where there are none
DefaultDependencies=no
After=local-fs.target
Before=sysinit.target
ConditionPathExistsGlob=!/etc/ssh/ssh_host_*_key

[Service]
Type=oneshot
ExecStart=/usr/bin/ssh-keygen -A
END
		mkdir -p /etc/systemd/system/sysinit.target.wants
		ln -sf ../ssh-host-keys.service /etc/systemd/system/sysinit.target.wants/
	fi
elif ! command -v cloud-init >/dev/null && [ ! -e /etc/init.d/sshd ]; then
	echo "spore: nothing makes SSH host keys as this guest boots: it has neither systemd nor cloud-init"
	trap - EXIT
	exit 3
fi

if command -v cloud-init >/dev/null; then
	# What it has not done yet it would write down after this.
	timeout 600 cloud-init status --wait >/dev/null 2>&1 || :
	cloud-init clean --logs >/dev/null 2>&1
fi
rm -f /var/lib/cloud/instance
for dir in instances data sem; do empty /var/lib/cloud/$dir; done

# Empty, not missing: that would be a first boot, at which systemd enables what somebody has disabled. (machine-id(5))
# Others make one where there is none.
if [ -d /run/systemd/system ]; then : >/etc/machine-id; else rm -f /etc/machine-id; fi
[ -L /var/lib/dbus/machine-id ] || rm -f /var/lib/dbus/machine-id
# It is written once more as its service stops.
systemctl stop systemd-random-seed.service >/dev/null 2>&1 || rc-service seedrng stop >/dev/null 2>&1 || :
rm -f /var/lib/systemd/random-seed /var/lib/systemd/credential.secret /var/lib/urandom/random-seed /var/lib/misc/random-seed
rm -f /var/lib/dhcp/*.leases /var/lib/dhclient/*.lease* /var/lib/dhcpcd/*.lease* /var/lib/dhcpcd/duid /var/lib/dhcpcd/secret
rm -f /var/lib/NetworkManager/*lease* /var/lib/NetworkManager/secret_key
for dir in seedrng wicked systemd/network; do empty /var/lib/$dir; done
# Memory of processes.
empty /var/lib/systemd/coredump
empty /var/crash

# Logs. The journal's files are in use until it is back in /run.
journalctl --relinquish-var >/dev/null 2>&1 || :
empty /var/log/journal
theirs /var/log || find /var/log -xdev -type f -exec sh -c 'for file; do : >"$file"; done' sh {} +
rm -f /var/lib/wtmpdb/wtmp.db /var/lib/lastlog/lastlog2.db

# A shell at a terminal writes its history when it is hung up, which would be after this.
for stat in /proc/[0-9]*/stat; do
	read -r pid comm _ _ _ _ tty _ 2>/dev/null <"$stat" || continue
	case $comm in "(bash)" | "(zsh)" | "(fish)" | "(ash)" | "(ksh)" | "(mksh)" | "(ksh93)")
		[ "$tty" = 0 ] || kill -9 "$pid" 2>/dev/null || :
		;;
	esac
done

# Users, last: from here on nobody gets in by a key before the next boot. What is another machine's stays as it is.
cut -d: -f6 /etc/passwd | sort -u | while read -r home; do
	case $home in / | "" | [!/]*) continue ;; esac
	[ -d "$home" ] || continue
	theirs "$home" || rm -f "$home"/.*_history "$home"/.lesshst "$home"/.viminfo "$home"/.wget-hsts
	fish="$home"/.local/share/fish
	theirs "$fish" || rm -f "$fish"/fish_history
	theirs "$home"/.ssh || rm -rf "$home"/.ssh/authorized_keys*
done
rm -f /etc/ssh/ssh_host_*_key /etc/ssh/ssh_host_*_key.pub
# What was removed is in blocks still; where the disk takes it they become zeros.
sync
fstrim -a >/dev/null 2>&1 || fstrim / >/dev/null 2>&1 || :
echo "spore: done"
