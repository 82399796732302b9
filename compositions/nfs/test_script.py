# A share is mounted by both clients, and what they do there holds for each other.
start_all()

with subtest("the server exports its directory"):
    server.wait_for_unit("nfs-server")
    assert server.succeed("exportfs").startswith("/srv/nfs"), server.succeed("exportfs -v")

with subtest("both clients mount it"):
    for client in client1, client2:
        client.succeed("mount -t nfs4 server:/ /mnt", timeout=60)
        mounted = client.succeed("findmnt --noheadings --output SOURCE,OPTIONS /mnt")
        assert mounted.startswith("server:/") and "vers=4.2" in mounted, mounted

with subtest("what one client writes the other reads"):
    client1.succeed("echo written by client1 >/mnt/file")
    assert client2.succeed("cat /mnt/file") == "written by client1\n"
    assert server.succeed("cat /srv/nfs/file") == "written by client1\n"

with subtest("a lock of one client holds for the other"):
    client1.succeed("systemd-run --quiet --unit=holder flock /mnt/lock sleep infinity")
    client2.wait_until_fails("flock --nonblock /mnt/lock true", timeout=30)
    client1.succeed("systemctl stop holder")
    client2.wait_until_succeeds("flock --nonblock /mnt/lock true", timeout=30)
