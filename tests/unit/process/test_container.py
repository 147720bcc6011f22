"""What is run in a container depends on nothing that its image has set."""

import subprocess

from claude_bottle.process import container


def test_a_command_has_a_user_and_absolute_paths() -> None:
    argv = container.execute("x", "/bin/true", "y", env={"A": "a b"}, flags=("--tty",))
    assert argv[:6] == ("docker", "exec", "--interactive", "--tty", "--user", "1000:1000")
    assert argv[6:9] == ("x", "/usr/bin/env", "-i")
    assert argv[-3:] == ("A=a b", "/bin/true", "y")
    assert container.execute("x", "/bin/true", user=container.GUARD)[4] == "65532:65532"


def test_a_program_sees_its_own_variables_alone() -> None:
    argv = container.clean("/usr/bin/env", env={"MORE": "1"})
    ran = subprocess.run(argv, env={"BASH_ENV": "/x", "PATH": "/y", "MORE": "2"}, capture_output=True, check=True)
    told = dict(line.split("=", 1) for line in ran.stdout.decode().splitlines())
    assert told == {
        "PATH": container.PATH, "HOME": "/home/agent", "LANG": "C.UTF-8", "OPENSSL_CONF": "/dev/null", "MORE": "1"
    }  # fmt: skip
