"""Sets up a PlatformIO core folder that never needs PlatformIO's registry.

Two things are put there: the SCons that pip has installed, in place of the package tool-scons;
and platforms of the names ststm32, sifive and atmelavr for the boards without a framework, with the
compiler on PATH.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from platformio.dependencies import get_core_dependencies

_STAND_INS = Path(__file__).resolve().parent / "stand_ins"
_NOWHERE = "http://127.0.0.1:9"  # the discard port, where nobody listens


def set_up(core: Path) -> dict[str, str]:
    """Fill ``core``; returns the environment variables with which PlatformIO uses it.

    With them PlatformIO finds no network at all, so that it cannot download in secret.
    """
    environment = {
        **os.environ,
        "PLATFORMIO_CORE_DIR": str(core),
        "PLATFORMIO_SETTING_ENABLE_TELEMETRY": "no",
        "PLATFORMIO_DISABLE_UPGRADE_CHECK": "true",
        **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), _NOWHERE),
        "NO_PROXY": "",
        "no_proxy": "",
    }
    _add_scons(core / "packages" / "tool-scons")
    install = [sys.executable, "-m", "platformio", "pkg", "install", "--global", "--silent"]
    for name in ("ststm32", "sifive", "atmelavr"):
        platform = core / "stand_ins" / name
        shutil.copytree(_STAND_INS / name, platform)
        (platform / "builder").mkdir()
        shutil.copy(_STAND_INS / "builder.py", platform / "builder" / "main.py")
        command = [*install, "--platform", f"symlink://{platform}"]
        subprocess.run(command, env=environment, check=True, timeout=120)
    return environment


def _add_scons(folder: Path) -> None:
    version = get_core_dependencies()["tool-scons"].lstrip("~^= ")
    package = {"name": "tool-scons", "version": version, "license": "MIT"}
    package["description"] = "The SCons of this Python"
    origin = {"owner": "platformio", "id": None, "name": "tool-scons"}
    record = {"type": "tool", "name": "tool-scons", "version": version}
    folder.mkdir(parents=True)
    (folder / "package.json").write_text(json.dumps(package))
    (folder / "scons.py").write_text("from SCons.Script import main\n\nmain()\n")
    (folder / ".piopm").write_text(
        json.dumps({**record, "spec": {**origin, "requirements": None, "uri": None}})
    )
