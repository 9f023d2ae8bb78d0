// A FerretDB of the tests' own: MongoDB's protocol over SQLite files.
//
// It serves the loopback address it is given (port 0: a free one) from a directory, says its URI in one line, and ends
// when its input does: whoever started it takes it along, however they go, and the directory with it.
//
// MongoDB changes one document atomically, FerretDB 1 does not: two updates with one filter may both find the document
// as it was. So commands go through one at a time.
package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"

	"github.com/FerretDB/FerretDB/ferretdb"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 3 {
		log.Fatal("usage: ferretdb ADDRESS DIRECTORY")
	}
	if err := serve(os.Args[1], os.Args[2]); err != nil {
		log.Fatal(err)
	}
	if err := os.RemoveAll(os.Args[2]); err != nil {
		log.Fatal(err)
	}
}

func serve(address, directory string) error {
	socket := filepath.Join(directory, "socket")
	_ = os.Remove(socket) // of one that was killed
	server, err := ferretdb.New(&ferretdb.Config{
		Listener:  ferretdb.ListenerConfig{Unix: socket},
		Logger:    slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
		Handler:   "sqlite",
		SQLiteURL: "file:" + directory + "/?_pragma=synchronous(off)",
	})
	if err != nil {
		return err
	}
	front, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	owned, end := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		end()
	}()
	go func() {
		_ = server.MongoDBURI() // waits until it listens
		fmt.Printf("mongodb://%s/\n", front.Addr())
		var turn sync.Mutex
		for {
			client, err := front.Accept()
			if err != nil {
				return
			}
			go relay(client, socket, directory, &turn)
		}
	}()
	return server.Run(owned)
}

func relay(client net.Conn, socket, directory string, turn *sync.Mutex) {
	defer client.Close()
	backend, err := net.Dial("unix", socket)
	if err != nil {
		return
	}
	defer backend.Close()
	for {
		request, err := message(client)
		if err != nil {
			return
		}
		reply, err := exchange(backend, request, directory, turn)
		if err != nil {
			return
		}
		if _, err := client.Write(reply); err != nil {
			return
		}
	}
}

func exchange(backend net.Conn, request []byte, directory string, turn *sync.Mutex) ([]byte, error) {
	turn.Lock()
	defer turn.Unlock()
	if _, err := backend.Write(request); err != nil || !wantsReply(request) {
		return nil, err
	}
	reply, err := message(backend)
	if err == nil && bytes.Contains(request, []byte("createIndexes")) {
		err = indexIDs(directory)
	}
	return reply, err
}
