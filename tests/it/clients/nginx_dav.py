"""Becomes an nginx that stores what is PUT below DIRECTORY/files, on a free port of 127.0.0.1, which it prints first.

usage: nginx_dav.py NGINX DIRECTORY [CERTIFICATE KEY PROTOCOL]
"""

import os
import socket
import sys

nginx, directory, *tls = sys.argv[1:]
listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
port = listener.getsockname()[1]
os.makedirs(f"{directory}/files")
temporary = "".join(f"{of}_temp_path {directory}/tmp;" for of in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
secure = ""
if tls:
    secure = f"ssl_certificate {tls[0]}; ssl_certificate_key {tls[1]}; ssl_protocols {tls[2]};"
with open(f"{directory}/nginx.conf", "w") as file:
    file.write(f"""
        {"user root;" if os.geteuid() == 0 else ""}
        daemon off; worker_processes 1; pid {directory}/pid; error_log {directory}/error.log;
        events {{ worker_connections 1024; }}
        http {{
            access_log off; client_max_body_size 64m; {temporary}
            keepalive_requests 50;
            server {{
                listen 127.0.0.1:{port}{" ssl" if tls else ""}; {secure}
                location / {{ root {directory}/files; dav_methods PUT; create_full_put_path on; }}
                location /forbidden/ {{ return 403; }}
            }}
        }}""")
# nginx takes over listening sockets whose descriptors stand here, as in an upgrade.
os.set_inheritable(listener.fileno(), True)
os.environ["NGINX"] = f"{listener.fileno()};"
print(port, flush=True)
os.execv(nginx, [nginx, "-p", directory, "-e", f"{directory}/error.log", "-c", f"{directory}/nginx.conf"])
