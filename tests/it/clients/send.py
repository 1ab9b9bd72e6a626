"""The sender of the tutorials in Python: send.py FILE HOST PORT."""

import os
import socket
import sys

path, host, port = sys.argv[1:]
with socket.create_connection((host, int(port))) as connection:
    connection.send(os.path.basename(path).encode())
    if connection.recv(1024) != b"ok":
        sys.exit("refused")
    with open(path, "rb") as file:
        while chunk := file.read(4096):
            connection.sendall(chunk)
print("file sent")
