package main

import (
	"encoding/binary"
	"errors"
	"io"
)

const (
	headerBytes = 16
	mostBytes   = 48_000_000
	opMsg       = 2013
	moreToCome  = 2
)

// message reads one message of the wire protocol, which begins with its length.
func message(from io.Reader) ([]byte, error) {
	header := make([]byte, headerBytes)
	if _, err := io.ReadFull(from, header); err != nil {
		return nil, err
	}
	length := binary.LittleEndian.Uint32(header)
	if length < headerBytes || length > mostBytes {
		return nil, errors.New("not a message of MongoDB's protocol")
	}
	whole := append(header, make([]byte, length-headerBytes)...)
	_, err := io.ReadFull(from, whole[headerBytes:])
	return whole, err
}

// wantsReply tells whether the client waits for an answer: not to an unacknowledged write.
func wantsReply(request []byte) bool {
	if binary.LittleEndian.Uint32(request[12:]) != opMsg || len(request) < headerBytes+4 {
		return true
	}
	return binary.LittleEndian.Uint32(request[headerBytes:])&moreToCome == 0
}
