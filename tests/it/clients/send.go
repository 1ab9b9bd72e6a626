// The sender of the Go tutorials, as they write it: what must go on working against this server, unchanged.
package main

import (
	"fmt"
	"io"
	"net"
	"os"
)

func sendFile(path string, conn net.Conn) {
	f, err := os.Open(path)
	if err != nil {
		fmt.Println("os.Open err =", err)
		return
	}
	defer f.Close()

	buf := make([]byte, 4096)
	for {
		n, err := f.Read(buf)
		if err != nil {
			if err == io.EOF {
				fmt.Println("file sent")
			} else {
				fmt.Println("f.Read err =", err)
			}
			return
		}
		conn.Write(buf[:n])
	}
}

func main() {
	if len(os.Args) != 3 {
		fmt.Println("usage: send FILE ADDRESS")
		return
	}
	path := os.Args[1]

	fi, err := os.Stat(path)
	if err != nil {
		fmt.Println("os.Stat err =", err)
		return
	}

	conn, err := net.Dial("tcp", os.Args[2])
	if err != nil {
		fmt.Println("net.Dial err =", err)
		return
	}
	defer conn.Close()

	_, err = conn.Write([]byte(fi.Name()))
	if err != nil {
		fmt.Println("conn.Write err =", err)
		return
	}

	buf := make([]byte, 1024)
	n, err := conn.Read(buf)
	if err != nil {
		fmt.Println("conn.Read err =", err)
		return
	}

	if "ok" == string(buf[:n]) {
		sendFile(path, conn)
	}
}
