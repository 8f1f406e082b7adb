"""PlatformIO's runner of Unity tests, with unity.h of this folder in place of a download."""

import socket
from urllib.parse import urlsplit

from platformio.public import UnityTestRunner


class CustomTestRunner(UnityTestRunner):
    EXTRA_LIB_DEPS = None

    def configure_build_env(self, env):
        """Nothing to add: unity.h asks for no configuration."""
        return env

    def stage_testing(self):
        """As PlatformIO does it, but no results are an error, and not a test that was skipped."""
        if self.options.without_testing:
            return
        port = urlsplit(self.get_test_port() or "")
        if port.scheme == "socket":
            self.read_socket(port.hostname, port.port)
        else:
            super().stage_testing()
        if not self.test_suite.is_finished():
            raise RuntimeError("The board has not sent all results; see what it says with -vv")

    def read_socket(self, host, port):
        """Read results to their end, or the board's.

        A virtual board starts with the connection, and pyserial drops what comes in until it has
        configured the port.
        """
        with socket.create_connection((host, port)) as line:
            while not self.test_suite.is_finished():
                received = line.recv(4096)
                if not received:
                    break
                self.on_testing_data_output(received)
