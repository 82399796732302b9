# The test of the public OAR composition of NixOS-Compose: a user submits an MPI job on all nodes.
# The job computes something that can be checked, and its exit status is read.
import re

start_all()

nodes = frontend.succeed("/usr/local/lib/oar-cluster/hosts node").split()

with subtest("the services run"):
    server.wait_for_unit("oar-server")
    frontend.wait_for_unit("apache2")
    frontend.wait_for_unit("oar-node")

with subtest("every node is Alive"):
    frontend.wait_until_succeeds("! oarnodes -s | grep Absent", timeout=300)
    states = frontend.succeed("oarnodes -s")
    cores = states.count(": Alive")
    assert cores == states.count(" : ") and cores >= len(nodes), states

# On cgroup v2 OAR 2.5.9 has no cpusets, and without them no oarsh: the job then goes by ssh.
no_cpusets, reason = frontend.execute("cat /run/nxc-oar/no-cpusets 2>/dev/null")
agent = "oarsh" if no_cpusets else "ssh"
if agent == "ssh":
    frontend.log(f"no cpusets, no oarsh: {reason.strip()}")

with subtest("user1 submits an MPI job on all nodes"):
    frontend.succeed(
        "cat >/users/user1/test.sh <<'EOF'\n"
        "#!/bin/bash\n"
        f"mpirun --hostfile $OAR_NODEFILE --mca plm_rsh_agent {agent} --mca btl tcp,self pi\n"
        "EOF"
    )
    frontend.succeed("chmod 755 /users/user1/test.sh && chown user1 /users/user1/test.sh")
    submission = frontend.succeed(f'su - user1 -c "cd && oarsub -l nodes={len(nodes)} ./test.sh"')
    job = re.search(r"OAR_JOB_ID=(\d+)", submission).group(1)

with subtest("the job ends"):
    frontend.wait_for_file(f"/users/user1/OAR.{job}.stdout", timeout=300)
    # Upstream looks once, with succeed(). But the file is there when the job starts.
    frontend.wait_until_succeeds(f"oarstat -j {job} -s | grep Terminated", timeout=300)

with subtest("all nodes computed pi together"):
    stdout = frontend.succeed(f"cat /users/user1/OAR.{job}.stdout")
    stderr = frontend.succeed(f"cat /users/user1/OAR.{job}.stderr")
    details = frontend.succeed(f"oarstat -j {job} -f")
    assert "exit_code = 0 " in details, f"{details}\n{stdout}{stderr}"
    result = f"pi 3.141592653590 by {cores} ranks on {len(nodes)} hosts: {' '.join(sorted(nodes))}"
    assert stdout.splitlines() == [result], f"{stdout}{stderr}"
