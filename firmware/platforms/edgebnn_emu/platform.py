from platformio.public import PlatformBase


class Edgebnn_emuPlatform(PlatformBase):  # PlatformIO makes this name of that of the platform
    def is_embedded(self):
        """Yes, this computer too: "pio test" then uploads, and reads the results from test_port."""
        return True
