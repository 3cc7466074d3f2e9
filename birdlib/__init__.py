"""birdlib: a folder of bird recordings -> a species classifier one can trust."""

__version__ = "0.1.0"
