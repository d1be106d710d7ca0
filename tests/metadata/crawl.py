"""What cloud-init makes of the metadata at a URL: argv is the directory of its modules and the URL."""

import json
import sys
import tempfile

sys.path.insert(0, sys.argv[1])

from cloudinit import helpers, util
from cloudinit.sources import DataSourceEc2 as ec2

# A container's command line or DMI data is not the guest's.
util.get_cmdline = lambda: ""
ec2.identify_platform = lambda: ec2.CloudNames.AWS

scratch = tempfile.mkdtemp()
paths = helpers.Paths({"cloud_dir": scratch, "run_dir": scratch})
source = ec2.DataSourceEc2({"datasource": {"Ec2": {"metadata_urls": [sys.argv[2]], "max_wait": 10}}}, None, paths)
crawled = source.crawl_metadata()
crawled["user-data"] = crawled.get("user-data", b"").decode("latin-1")
print(json.dumps(crawled))
