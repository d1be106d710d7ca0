# What a guest runs before an image is made of it, as root: it forgets what makes it this machine, and begins anew at
# its next boot, as do all that are launched from the image. The one line that it prints says how it went.
set -eu

# What is missing is no error; what can't be removed is one.
trap 'test $? = 0 || echo "spore: a step failed, and those before it are done"' EXIT

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
	cloud-init clean --logs >/dev/null 2>&1
fi
rm -rf /var/lib/cloud/instance /var/lib/cloud/instances /var/lib/cloud/data /var/lib/cloud/sem

# Empty, not missing: that would be a first boot, at which systemd enables what somebody has disabled. (machine-id(5))
: >/etc/machine-id
[ -L /var/lib/dbus/machine-id ] || rm -f /var/lib/dbus/machine-id
# It is written once more as its service stops.
systemctl stop systemd-random-seed.service >/dev/null 2>&1 || :
rm -f /var/lib/systemd/random-seed /var/lib/systemd/credential.secret /var/lib/urandom/random-seed
rm -f /var/lib/dhcp/*.leases /var/lib/dhcpcd/*.lease* /var/lib/NetworkManager/*lease* /var/lib/NetworkManager/secret_key
rm -rf /var/lib/systemd/network/*

# Logs. The journal's files are in use until it is back in /run.
journalctl --relinquish-var >/dev/null 2>&1 || :
rm -rf /var/log/journal/*
find /var/log -xdev -type f -exec sh -c 'for file; do : >"$file"; done' sh {} +

# Users, last: from here on nobody gets in by a key before the next boot. What is another machine's stays as it is.
cut -d: -f6 /etc/passwd | sort -u | while read -r home; do
	case $home in / | "" | [!/]*) continue ;; esac
	[ -d "$home" ] || continue
	case $(stat -f -c %T "$home") in nfs* | smb* | cifs | v9fs | fuse* | afs | ceph) continue ;; esac
	rm -f "$home"/.ssh/authorized_keys* "$home"/.*_history "$home"/.lesshst "$home"/.viminfo "$home"/.wget-hsts
done
rm -f /etc/ssh/ssh_host_*_key /etc/ssh/ssh_host_*_key.pub
sync
echo "spore: done"
