"""As much of Kafka's protocol as raw requests need, by hand: it must be able to send what no client library would."""

import socket
import struct


def connect(port, timeout_s=10):
    """A connection to a broker on loopback."""
    return socket.create_connection(("127.0.0.1", port), timeout_s)


def receive_exactly(connection, count):
    """Exactly so many bytes; None when the peer closed before."""
    received = b""
    while len(received) < count:
        try:
            chunk = connection.recv(count - len(received))
        except ConnectionResetError:
            return None
        if not chunk:
            return None
        received += chunk
    return received


def string(text):
    """STRING: two bytes of length; NULLABLE_STRING's null for None."""
    return struct.pack(">h", -1) if text is None else struct.pack(">h", len(text)) + text.encode()


def request(api, version, correlation, body, client_id="raw"):
    """A framed request with header version 1 (no request here is flexible)."""
    message = struct.pack(">hhi", api, version, correlation) + string(client_id) + body
    return struct.pack(">i", len(message)) + message


def response(connection):
    """A response's body behind correlation id, or None when the broker closed the connection."""
    head = receive_exactly(connection, 4)
    if head is None:
        return None
    message = receive_exactly(connection, struct.unpack(">i", head)[0])
    return None if message is None else message[4:]


def api_versions(port):
    """{api key: (lowest, highest version)} that the broker offers, from ApiVersions version 0."""
    with connect(port) as connection:
        connection.sendall(request(18, 0, 1, b""))
        body = response(connection)
    error, count = struct.unpack_from(">hi", body)
    if error:
        raise ValueError(f"ApiVersions answered error {error}")
    entries = struct.iter_unpack(">hhh", body[6 : 6 + 6 * count])
    return {key: (low, high) for key, low, high in entries}
