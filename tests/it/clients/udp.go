// The UDP client of the Go tutorials: one datagram there, one back.
package main

import (
	"fmt"
	"net"
	"os"
)

func main() {
	conn, err := net.Dial("udp", os.Args[1])
	if err != nil {
		fmt.Println("net.Dial err =", err)
		return
	}
	defer conn.Close()

	conn.Write([]byte("are you ready?"))

	buf := make([]byte, 4096)
	n, err := conn.Read(buf)
	if err != nil {
		fmt.Println("conn.Read err =", err)
		return
	}
	fmt.Println("the server says:", string(buf[:n]))
}
