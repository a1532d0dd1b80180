import errno
import sys

import nbd


def connect(headers):
    h = nbd.NBD()
    h.set_strict_mode(0)
    if headers == "simple":
        h.set_request_structured_replies(False)
    else:
        h.add_meta_context("base:allocation")
    if can_extend:
        h.set_request_extended_headers(headers == "extended")
    h.connect_uri(sys.argv[1])
    assert h.get_structured_replies_negotiated() == (headers != "simple")
    if can_extend:
        assert h.get_extended_headers_negotiated() == (headers == "extended")
    return h


# libnbd from 1.18 on.
can_extend = hasattr(nbd.NBD, "set_request_extended_headers")


def refused(number, call):
    try:
        call()
    except nbd.Error as error:
        assert error.errnum == number, (error, errno.errorcode[number])
    else:
        raise AssertionError("not refused: " + errno.errorcode[number])
    # The connection goes on.
    assert len(h.pread(512, 0)) == 512


for headers in (["extended"] if can_extend else []) + ["structured", "simple"]:
    h = connect(headers)
    size = h.get_size()
    refused(errno.EINVAL, lambda: h.pread(512, size))
    refused(errno.EINVAL, lambda: h.pread(1024, size - 512))
    refused(errno.ENOSPC, lambda: h.pwrite(bytes(1024), size - 512))
    refused(errno.ENOSPC, lambda: h.zero(1024, size - 512))
    refused(errno.EINVAL, lambda: h.trim(1024, size - 512))
    refused(errno.EINVAL, lambda: h.cache(1024, size - 512))
    refused(errno.EINVAL, lambda: h.pread(512, 1))
    refused(errno.EINVAL, lambda: h.pwrite(bytes(100), 0))
    refused(errno.EINVAL, lambda: h.pread(512, 0, flags=1 << 12))
    refused(errno.EINVAL, lambda: h.pwrite(bytes(512), 0, flags=1 << 12))
    refused(errno.EINVAL, lambda: h.flush(flags=1 << 12))
    h.pwrite(b"a" * 8192, 4096, nbd.CMD_FLAG_FUA)
    h.zero(4096, 4096, nbd.CMD_FLAG_NO_HOLE)
    assert h.pread(8192, 4096) == bytes(4096) + b"a" * 4096
    h.flush()
    # Many at once, each into a buffer of its own.
    buffers = [nbd.Buffer(512) for _ in range(100)]
    cookies = [h.aio_pread(buffer, 512 * at) for at, buffer in enumerate(buffers)]
    while h.aio_in_flight() > 0:
        h.poll(-1)
        [h.aio_command_completed(cookie) for cookie in cookies]
    read = b"".join(buffer.to_bytearray() for buffer in buffers)
    assert read == h.pread(51200, 0)
    if headers != "simple":
        chunks = []

        def chunk(data, offset, status, error):
            assert error.value == 0
            chunks.append((offset, len(data)))

        h.pread_structured(4 << 20, 0, chunk)
        at = 0
        for offset, length in sorted(chunks):
            assert offset == at, "each byte once"
            at += length
        assert at == 4 << 20
        found = []
        extent = lambda context, offset, entries, error: found.append((offset, entries))
        h.block_status(1 << 20, 0, extent)
        assert sum(found[0][1][::2]) >= 1 << 20
        h.block_status(1 << 20, 0, extent, nbd.CMD_FLAG_REQ_ONE)
        assert len(found[1][1]) == 2 and found[1][1][0] <= 1 << 20
        refused(errno.EINVAL, lambda: h.block_status(1024, size - 512, extent))
    if headers == "extended":
        found = []
        extent = lambda context, offset, entries, error: found.append(entries)
        h.block_status_64(size, 0, extent)
        assert sum(length for length, _ in found[0]) == size
        refused(errno.EINVAL, lambda: h.block_status_64(1 << 40, 0, extent))
        refused(errno.EINVAL, lambda: h.trim(1 << 40, 0))
        refused(errno.ENOSPC, lambda: h.zero(1 << 40, 0))
        h.zero(size, 0)
    h.shutdown()
