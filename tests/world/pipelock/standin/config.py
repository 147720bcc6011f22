"""Read the configuration file, as strictly as pipelock does.

The dataclasses are the schema: a key that is not a field is refused, and a field's default fixes the type.
"""

import dataclasses
import importlib
import re
from dataclasses import dataclass
from typing import Any, TypeVar

Section = TypeVar("Section")

# Keys that pipelock knows and that loosen what a bottle relies on. The double does not act on them, so it takes none.
loosening = ("enforce", "internal", "media_policy", "response_scanning", "ssrf")


class ConfigError(ValueError):
    """Say in one line why a file cannot be used."""


@dataclass(frozen=True)
class Monitoring:
    max_requests_per_minute: int = 60
    subdomain_entropy_threshold: float = 4.0


@dataclass(frozen=True)
class FetchProxy:
    listen: str = ""
    max_response_mb: int = 10
    monitoring: Monitoring = Monitoring()


@dataclass(frozen=True)
class ForwardProxy:
    enabled: bool = False
    max_tunnel_seconds: int = 300
    idle_timeout_seconds: int = 120
    sni_verification: bool = True


@dataclass(frozen=True)
class Pattern:
    name: str = ""
    regex: str = ""
    severity: str = ""


@dataclass(frozen=True)
class Dlp:
    scan_env: bool = False
    include_defaults: bool = True
    patterns: tuple[Pattern, ...] = dataclasses.field(default=(), metadata={"of": Pattern})


@dataclass(frozen=True)
class Sentry:
    enabled: bool = True


@dataclass(frozen=True)
class Config:
    """Hold one whole configuration; the defaults are what an empty file means."""

    version: int = 1
    mode: str = "balanced"
    api_allowlist: tuple[str, ...] = dataclasses.field(default=(), metadata={"of": str})
    trusted_domains: tuple[str, ...] = dataclasses.field(default=(), metadata={"of": str})
    fetch_proxy: FetchProxy = FetchProxy()
    forward_proxy: ForwardProxy = ForwardProxy()
    dlp: Dlp = Dlp()
    sentry: Sentry = Sentry()
    metrics_listen: str = ""
    explain_blocks: bool = False
    default_agent_identity: str = ""
    bind_default_agent_identity: bool = False
    loosened: tuple[str, ...] = ()


def parse(data: bytes) -> Config:
    """Read a file's text. Raises ConfigError on broken YAML, unknown keys, wrong types and unusable values."""
    yaml: Any = importlib.import_module("yaml")
    try:
        tree = yaml.load(data, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise ConfigError("yaml: " + " ".join(str(error).split())) from error
    loosened = tuple(key for key in loosening if isinstance(tree, dict) and tree.pop(key, None) is not None)
    if isinstance(tree, dict) and "loosened" in tree:
        raise ConfigError("field loosened not found")
    config = section(Config, tree, "config")
    trusted = tuple(trusted_name(name) for name in config.trusted_domains)
    return check(dataclasses.replace(config, loosened=loosened, trusted_domains=trusted))


def trusted_name(text: str) -> str:
    """Return a trusted name or `*.name` as it is compared: lower, without blanks around it and one trailing dot."""
    name = text.strip().lower().removesuffix(".")
    inner = name.removeprefix("*.")
    if not name or re.search(r"[/:*?\[\]]", inner) or (inner != name and "." not in inner):
        raise ConfigError(f'trusted_domains "{text}": only exact hosts and *.example.com wildcards are supported')
    return name


def check(config: Config) -> Config:
    """Refuse values that no mode can run with; return the configuration."""
    if config.mode not in ("strict", "balanced", "audit"):
        raise ConfigError(f'invalid mode "{config.mode}": must be strict, balanced, or audit')
    if config.mode == "strict" and not config.api_allowlist:
        raise ConfigError("strict mode requires at least one domain in api_allowlist")
    for pattern in config.dlp.patterns:
        try:
            re.compile(pattern.regex)
        except re.error as error:
            raise ConfigError(f'DLP pattern "{pattern.name}" has invalid regex: {error}') from error
    return config


def section(kind: type[Section], data: object, where: str) -> Section:
    """Build one section from a mapping; a missing or null one is all defaults."""
    fields: dict[str, Any] = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if data is None:
        return kind()
    if not isinstance(data, dict):
        raise ConfigError(f"cannot read {type(data).__name__} as {where}")
    for key in data:
        if key not in fields:
            raise ConfigError(f"field {key} not found in {where}")
    return kind(**{key: convert(fields[key], value, f"{where}.{key}") for key, value in data.items()})


def convert(field: Any, value: object, where: str) -> object:
    """Check a value against its field's default; null and a number's zero mean the default."""
    default = field.default
    if value is None:
        return default
    if dataclasses.is_dataclass(default):
        return section(type(default), value, where)
    if isinstance(default, tuple) and isinstance(value, list):
        return tuple(item(field.metadata["of"], entry, where) for entry in value)
    if isinstance(default, bool) == isinstance(value, bool):
        if isinstance(value, bool):
            return value
        if isinstance(default, str) and isinstance(value, str | int | float):
            return str(value)
        if isinstance(value, type(default)) or (isinstance(value, int) and isinstance(default, float)):
            return value or default
    raise ConfigError(f"cannot read {type(value).__name__} as {where}")


def item(kind: type[object], value: object, where: str) -> object:
    if kind is not str:
        return section(kind, value, where)
    if isinstance(value, str | int | float):
        return str(value)
    raise ConfigError(f"cannot read {type(value).__name__} as an entry of {where}")


def downgrades(old: Config, new: Config) -> list[str]:
    """Say what in a new file would weaken a running strict proxy, one text a finding; empty when it may be used."""
    if old.mode != "strict":
        return []
    kept = {(pattern.name, pattern.regex) for pattern in new.dlp.patterns}
    gone = [pattern.name for pattern in old.dlp.patterns if (pattern.name, pattern.regex) not in kept]
    found = {
        f"mode - mode downgraded from strict to {new.mode}": new.mode != "strict",
        "dlp.patterns - removed or changed: " + ", ".join(gone): bool(gone),
        "forward_proxy.enabled - forward proxy disabled": old.forward_proxy.enabled and not new.forward_proxy.enabled,
        "dlp.scan_env - switched on": new.dlp.scan_env and not old.dlp.scan_env,
        "trusted_domains - trusted domains added": not set(new.trusted_domains) <= set(old.trusted_domains),
        "protection loosened by " + ", ".join(new.loosened): bool(new.loosened),
    }
    return [text for text, applies in found.items() if applies]
