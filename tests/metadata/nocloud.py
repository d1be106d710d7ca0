"""What cloud-init makes of the files of a CIDATA volume: argv is the directory of its modules and that of the files."""

import json
import sys
import tempfile

sys.path.insert(0, sys.argv[1])

from cloudinit import helpers, util
from cloudinit.sources import DataSourceNoCloud as nocloud

util.get_cmdline = lambda: ""
util.find_devs_with = lambda *arguments, **named: []
nocloud.dmi.read_dmi_data = lambda key: None

scratch = tempfile.mkdtemp()
paths = helpers.Paths({"cloud_dir": scratch, "run_dir": scratch})
source = nocloud.DataSourceNoCloud({}, None, paths)
source.seed_dirs = [sys.argv[2]]
assert source._get_data()
print(json.dumps({
    "meta-data": source.metadata,
    "user-data": util.decode_binary(source.userdata_raw) if isinstance(source.userdata_raw, str)
                 else source.userdata_raw.decode("latin-1"),
    "network-config": source._network_config,
    "instance-id": source.get_instance_id(),
    "public-keys": source.get_public_ssh_keys(),
    "hostname": getattr(source.get_hostname(), "hostname", source.get_hostname()),
}))
