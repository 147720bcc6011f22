"""The credential proxy's hosts, configuration and settings; tests/integration has what nginx makes of them."""

import json
import re
from ipaddress import IPv4Address

import pytest

from claude_bottle.bottle import credential_proxy as container
from claude_bottle.egress import allowlist, credential_proxy
from claude_bottle.egress.allowlist import API, Host
from claude_bottle.egress.credential_proxy import Ended, Signed

OWN = (Host("api.github.com"), Host("git.example.com", 8443))
PORTS = (22, 443, 8443)


def hosts() -> tuple[Ended, ...]:
    return credential_proxy.ended(OWN, PORTS)


def test_each_ended_host_has_an_address_of_its_own() -> None:
    assert [str(host) for host in hosts()] == [
        *(str(host) for host in allowlist.defaults()),
        "api.github.com",
        "git.example.com:8443",
    ]
    assert [host.address for host in hosts()] == [IPv4Address("127.13.0.1") + place for place in range(9)]


def test_only_a_users_host_is_forwarded_on_other_ports() -> None:
    forwards = {host.name: host.forwards for host in hosts() if host.forwards}
    assert forwards == {"api.github.com": (22, 8443), "git.example.com": (22, 443)}


def test_the_sidecar_may_reach_what_the_proxy_listens_on() -> None:
    pairs = credential_proxy.pairs(hosts())
    listens = re.findall(r"listen (127\.[\d.]+):(\d+)", credential_proxy.configuration(hosts()).decode())
    assert {(str(address), str(port)) for address, port in pairs} == set(listens)
    assert len(set(pairs)) == len(pairs) == 7 + 2 + 4


def test_every_default_host_has_its_table() -> None:
    assert list(credential_proxy.REQUESTS) == [host.name for host in allowlist.defaults()]
    for rows in credential_proxy.REQUESTS.values():
        for methods, path, reason in rows:
            assert methods
            assert path.startswith("/")
            assert path != "/"
            assert reason


def test_a_file_of_further_certificates_is_named_only_if_there_is_one() -> None:
    """An empty one keeps nginx from starting."""
    for more in (False, True):
        text = credential_proxy.configuration(hosts(), more=more).decode()
        assert text.count("VerifyCAPath /etc/ssl/certs;") == text.count("location @out") == 2
        assert text.count("VerifyCAFile /run/proxy/more-ca.pem;") == 2 * more


@pytest.mark.parametrize("more", [False, True])
def test_the_configuration_is_whole(more: bool) -> None:
    text = credential_proxy.configuration(hosts(), more=more).decode()
    assert text.count("{") == text.count("}")
    assert not re.findall(r"\b(NUMBER|KEY|NAME|ADDRESS|PORT)\b|# (each|end|only) ", text)
    for host in hosts():
        assert text.count(f"server_name {host.name};") == 1
        assert f"{host.address} {host};" in text
    api = text[text.index(f"server_name {API};") :]
    assert text.count("location ~* ^/v1/messages") == api.count("location ~* ^/v1/messages") == 1
    assert api.count("server_name") == 1


def test_the_configuration_does_not_depend_on_any_secret() -> None:
    """It has no way to: what has the secrets is given to settings() alone."""
    assert credential_proxy.configuration(hosts()) == credential_proxy.configuration(hosts())
    assert b"Bearer" not in credential_proxy.configuration(hosts())


def test_the_authority_names_the_ended_hosts() -> None:
    text = credential_proxy.authority(hosts()).decode()
    permitted = re.findall(r"permitted;DNS:([^,\s]+)", text)
    assert permitted == [host.name for host in hosts()]
    assert f"subjectAltName = {', '.join(f'DNS:{name}' for name in permitted)}\n" in text


def test_settings_have_what_lua_needs() -> None:
    signed = (Signed(OWN[0], {"Authorization": "x"}), Signed(OWN[1], {"X-Key": "y"}, ("GET",), ("/a/",)))
    made = credential_proxy.settings(
        "t0ken", signed, digest_key=b"\x01\xff", requests=3, server_side_fetch=True, paths=[("*", "/v1/files")]
    )
    data = json.loads(made)
    found = data.pop("hosts")
    assert data == {"digest_key": "01ff", "requests": 3, "server_side_fetch": True}
    assert found["api.github.com"] == {"set": {"Authorization": "x"}}
    assert found["git.example.com:8443"] == {"set": {"X-Key": "y"}, "methods": {"GET": True}, "paths": [["*", "/a/"]]}
    assert found[API]["set"] == {"Authorization": "Bearer t0ken"}
    assert found[API]["default"] is found["claude.ai"]["default"] is True
    assert ["POST", "/v1/messages"] in found[API]["paths"]
    assert ["*", "/v1/files"] in found[API]["paths"]
    assert found["claude.ai"]["set"] == {}
    assert b"requests" not in credential_proxy.settings("t", (), digest_key=b"")


@pytest.mark.parametrize("secret", ["$x", "\"'\\{};", "\u00e9", "\udc80\udcff", "${y}", "\\u0041"])
def test_a_secret_is_data(secret: str) -> None:
    made = credential_proxy.settings(secret, (), digest_key=b"")
    value = json.loads(made.decode(errors="surrogateescape"))["hosts"][API]["set"]["Authorization"]
    assert value == f"Bearer {secret}"


def test_secrets_are_not_shown() -> None:
    assert "s3cret" not in repr(Signed(OWN[0], {"Authorization": "s3cret"}))


def test_the_container_gets_sizes_and_no_secret() -> None:
    settings = credential_proxy.settings("s3cret", (), digest_key=b"")
    tar = container.files(hosts(), settings, b"PEM")
    argv = container.run("n", "container:x", "image", ("a=b",), b"rules", tar, remote=False)
    assert b"s3cret" in tar
    assert "s3cret" not in " ".join(argv)
    assert argv[-3:] == ("5", str(len(tar)), "")
    assert container.run("n", "container:x", "image", (), b"", b"", remote=True)[-3:] == ("0", "0", "45")
