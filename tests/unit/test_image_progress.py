"""What a build's output tells of its progress."""

from __future__ import annotations

from nxc_testing.images.builder import Stages

OUTPUT = """\
I: using /tmp/mmdebstrap.x as tempdir
I: running apt-get update...
Get:1 http://mirror.example/debian bookworm InRelease [151 kB]
Fetched 9415 kB in 1s (7220 kB/s)
I: downloading packages with apt...
0 upgraded, 69 newly installed, 0 to remove and 0 not upgraded.
Need to get 29.7 MB of archives.
Fetched 29.7 MB in 0s (149 MB/s)
I: installing essential packages...
Setting up base-files (12.4) ...
0 upgraded, 0 newly installed, 0 to remove and 0 not upgraded.
1 upgraded, 2 newly installed, 0 to remove and 0 not upgraded.
Need to get 100 kB/9622 kB of archives.
Fetched 100 kB in 0s (119 MB/s)
Fetched 100 kB in 0s (119 MB/s)
nxc: running build.sh
I: creating tarball...
"""


def test_every_stage_is_told_once_and_in_order() -> None:
    stages = Stages()
    assert [message for line in OUTPUT.splitlines() if (message := stages(line))] == [
        "reading the mirror's indexes",
        "downloading 69 packages, 29.7 MB",
        "installing 69 packages",
        "configuring the essential packages",
        "downloading 2 packages, 9622 kB",
        "installing 2 packages",
        "running build.sh",
        "packing",
    ]
