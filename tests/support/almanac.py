"""The broker's own almanac: calendars are values, so there is nothing to fake."""

from qbroker_server.rpc.almanac import WireAlmanac

ALMANAC = WireAlmanac(message_bytes_max=100_000)
