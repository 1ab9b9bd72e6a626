"""Stores files over HTTP: http_put.py HOST PORT FILE. Prints what the server says, by http.client and by urllib."""

import http.client
import os
import sys
import urllib.error
import urllib.parse
import urllib.request

host, port, path = sys.argv[1:]
name = urllib.parse.quote(os.path.basename(path))

# Two requests on one connection: by length, and in chunks.
connection = http.client.HTTPConnection(host, int(port))
with open(path, "rb") as file:
    connection.request("PUT", f"/{name}", body=file, headers={"Content-Length": str(os.path.getsize(path))})
    response = connection.getresponse()
    print(response.status, response.read().decode(), end="")
with open(path, "rb") as file:
    pieces = iter(lambda: file.read(1 << 16), b"")
    connection.request("PUT", f"/chunked-{name}", body=pieces, encode_chunked=True,
                       headers={"Transfer-Encoding": "chunked"})
    response = connection.getresponse()
    print(response.status, response.read().decode(), end="")

with open(path, "rb") as file:
    request = urllib.request.Request(f"http://{host}:{port}/urllib-{name}", data=file.read(), method="PUT")
    with urllib.request.urlopen(request) as response:
        print(response.status, response.read().decode(), end="")
    request.add_header("If-None-Match", "*")
    try:
        urllib.request.urlopen(request)
    except urllib.error.HTTPError as error:
        print(error.code, error.read().decode(), end="")
