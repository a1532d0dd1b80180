"""A server of NBD with TLS that sends tickets, which are records without data, also in the middle of replies.

tickets.py FOLDER PORT FILE: serves 1 MiB of memory with the certificates of the folder, and makes the file once it
listens. Writes a line on stderr for each connection and for each ticket. Needs OpenSSL with TLS in the kernel: a
record of another type is sent past OpenSSL.
"""

import socket
import ssl
import struct
import sys

folder, port, file = sys.argv[1:]
disk = bytearray(1 << 20)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(f"{folder}/server-cert.pem", f"{folder}/server-key.pem")
context.options |= 1 << 3  # SSL_OP_ENABLE_KTLS
SOL_TLS, TLS_SET_RECORD_TYPE, HANDSHAKE, NEW_SESSION_TICKET = 282, 1, 22, 4
READ, WRITE, DISC = 0, 1, 2


def take(stream, count):
    data = b""
    while len(data) < count:
        more = stream.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def ticket(stream):
    record = bytes([NEW_SESSION_TICKET, 0, 0, 66]) + bytes(66)
    kind = [(SOL_TLS, TLS_SET_RECORD_TYPE, bytes([HANDSHAKE]))]
    # ssl's own class refuses messages with control data.
    assert socket.socket.sendmsg(stream, [record], kind) == len(record)
    print("ticket", file=sys.stderr, flush=True)


def options(stream):
    """Answers options until TLS is to begin, or requests are."""
    while True:
        _, option, length = struct.unpack(">QII", take(stream, 16))
        take(stream, length)

        def reply(kind, data=b""):
            stream.sendall(struct.pack(">QIII", 0x3E889045565A9, option, kind, len(data)) + data)

        if option == 5:
            return reply(1)
        if option == 7:
            flags = 1 | 1 << 2 | 1 << 3
            reply(3, struct.pack(">HQH", 0, len(disk), flags))
            return reply(1)
        reply(1 if option == 8 else 1 << 31 | 1)


def serve(plain):
    plain.sendall(b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3))
    take(plain, 4)
    options(plain)
    stream = context.wrap_socket(plain, server_side=True)
    options(stream)
    while True:
        _, _, command, cookie, offset, length = struct.unpack(">IHHQQI", take(stream, 28))
        if command == DISC:
            return
        if command == WRITE:
            disk[offset : offset + length] = take(stream, length)
        if command == READ:
            data, half = disk[offset : offset + length], length // 2
            head = struct.pack(">IHHQIQ", 0x668E33EF, 0, 1, cookie, length + 8, offset)
            for part in (head[:10], head[10:] + data[:half], data[half:]):
                stream.sendall(part)
                ticket(stream)
        stream.sendall(struct.pack(">IHHQI", 0x668E33EF, 1, 0, cookie, 0))


listener = socket.create_server(("127.0.0.1", int(port)))
open(file, "w").close()
while True:
    connection, _ = listener.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    print("connection", file=sys.stderr, flush=True)
    try:
        serve(connection)
    except (EOFError, OSError) as error:
        print("ended:", error, file=sys.stderr, flush=True)
    connection.close()
