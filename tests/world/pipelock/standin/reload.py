"""Watch the configuration file, and take a new one where it does not weaken a strict proxy."""

import asyncio
import dataclasses
import hashlib
import time
from pathlib import Path

from . import log
from .config import Config, ConfigError, downgrades, parse
from .judge import Judge
from .proxy import Proxy

poll_seconds = 0.08
quiet_seconds = 2.0


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def effective(config: Config, mode: str | None) -> Config:
    """Lay the command line's mode over the file's."""
    return dataclasses.replace(config, mode=mode) if mode else config


class Reloader:
    """Hold which file is in force; `data` is its text at the start."""

    def __init__(self, proxy: Proxy, path: Path, mode: str | None, data: bytes) -> None:
        self.proxy, self.path, self.mode, self.hash = proxy, path, mode, digest(data)
        self.taken = -quiet_seconds
        self.seen = self.signature()

    def signature(self) -> tuple[int, ...] | None:
        try:
            stat = self.path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino

    async def watch(self) -> None:
        """Look for a changed file for ever; one that still changes between two looks is waited for."""
        loaded = self.seen
        while True:
            await asyncio.sleep(poll_seconds)
            before, self.seen = self.seen, self.signature()
            if self.seen != loaded and self.seen == before:
                loaded = self.seen
                self.reload()

    def reload(self) -> None:
        """Read the file and put it in force, or say why not and keep the old rules."""
        try:
            data = self.path.read_bytes()
            if digest(data) == self.hash and time.monotonic() - self.taken < quiet_seconds:
                return
            self.take(parse(data), digest(data))
        except (OSError, ConfigError) as error:
            log.remark(f"pipelock: config reload failed: {error}")

    def take(self, new: Config, hash_: str) -> None:
        old = self.proxy.judge.config
        if findings := downgrades(old, new):
            for text in findings:
                log.remark(f"WARNING: config reload: {text}")
            reason = f"rejected: security downgrade from {old.mode} mode"
            log.event(
                "error", "error", "request error",
                method="CONFIG_RELOAD", resource=str(self.path), error=reason,
            )  # fmt: skip
            return
        judge = Judge(dataclasses.replace(effective(new, self.mode), metrics_listen=old.metrics_listen))
        judge.recent = self.proxy.judge.recent
        self.proxy.judge, self.hash, self.taken = judge, hash_, time.monotonic()
        log.event(
            "info", "config_reload", "configuration reloaded",
            status="success", detail=f"mode={judge.config.mode}", config_hash=hash_,
        )  # fmt: skip
