"""What the tests of the pages expect comes within a minute, also on a busy machine."""

from playwright.async_api import expect

expect.set_options(timeout=60_000)
