// checksum writes many records with keys, headers and times of their own, made of real lines, and says what a topic holds:
// of each partition the number of records, and a checksum over key, value, headers and time of each in the order of offsets.
package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"hash"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	limit   = 20 * time.Minute
	lineMax = 1 << 20
)

func main() {
	bootstrap := flag.String("bootstrap", "", "HOST:PORT of a broker")
	count := flag.Int("records", 0, "records to write")
	flag.Parse()
	if *bootstrap == "" || flag.NArg() < 2 {
		fmt.Fprintln(os.Stderr, "usage: checksum --bootstrap HOST:PORT sum TOPIC")
		fmt.Fprintln(os.Stderr, "       checksum --bootstrap HOST:PORT --records N write TOPIC FILE...")
		os.Exit(2)
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	var err error
	switch topic := flag.Arg(1); flag.Arg(0) {
	case "write":
		err = write(ctx, *bootstrap, topic, *count, flag.Args()[2:])
	case "sum":
		err = sum(ctx, *bootstrap, topic)
	default:
		err = fmt.Errorf("no command %q", flag.Arg(0))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "checksum:", err)
		os.Exit(1)
	}
}

func lines(paths []string) ([][]byte, error) {
	var found [][]byte
	for _, path := range paths {
		file, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		scanner := bufio.NewScanner(file)
		scanner.Buffer(nil, lineMax)
		for scanner.Scan() {
			found = append(found, append([]byte(nil), scanner.Bytes()...))
		}
		file.Close()
		if err := scanner.Err(); err != nil {
			return nil, err
		}
	}
	if len(found) == 0 {
		return nil, errors.New("no line to write")
	}
	return found, nil
}

func write(ctx context.Context, bootstrap, topic string, count int, paths []string) error {
	values, err := lines(paths)
	if err != nil {
		return err
	}
	broker, err := kgo.NewClient(
		kgo.SeedBrokers(bootstrap), kgo.DefaultProduceTopic(topic), kgo.ProducerBatchCompression(kgo.Lz4Compression()),
		kgo.ProducerLinger(5*time.Millisecond),
	)
	if err != nil {
		return err
	}
	defer broker.Close()
	// A millisecond apart, and so new that no retention takes them.
	first := time.Now().Add(-time.Duration(count) * time.Millisecond)
	var refused atomic.Int64
	for number := range count {
		record := &kgo.Record{
			Key:       []byte(strconv.Itoa(number)),
			Value:     values[number%len(values)],
			Timestamp: first.Add(time.Duration(number) * time.Millisecond),
		}
		if number%7 == 0 {
			record.Headers = []kgo.RecordHeader{{Key: "number", Value: []byte(strconv.Itoa(number))}, {Key: "null"}}
		}
		broker.Produce(ctx, record, func(_ *kgo.Record, err error) {
			if err != nil {
				refused.Add(1)
			}
		})
	}
	if err := broker.Flush(ctx); err != nil {
		return err
	}
	if refused.Load() > 0 {
		return fmt.Errorf("%d of %d records refused", refused.Load(), count)
	}
	return nil
}

type partition struct {
	Records int    `json:"records"`
	Sum     string `json:"sha256"`
	hash    hash.Hash
	end     int64
	read    int64
}

func (p *partition) add(record *kgo.Record) {
	p.part(record.Key)
	p.part(record.Value)
	for _, header := range record.Headers {
		p.part([]byte(header.Key))
		p.part(header.Value)
	}
	p.number(record.Timestamp.UnixMilli())
	p.Records++
}

func (p *partition) part(data []byte) {
	length := int64(len(data))
	if data == nil {
		length = -1
	}
	p.number(length)
	p.hash.Write(data)
}

func (p *partition) number(value int64) {
	var octets [8]byte
	binary.BigEndian.PutUint64(octets[:], uint64(value))
	p.hash.Write(octets[:])
}

func sum(ctx context.Context, bootstrap, topic string) error {
	broker, err := kgo.NewClient(
		kgo.SeedBrokers(bootstrap), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.KeepControlRecords(), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
	)
	if err != nil {
		return err
	}
	defer broker.Close()
	ends, err := kadm.NewClient(broker).ListEndOffsets(ctx, topic)
	if err != nil {
		return err
	}
	found := map[int32]*partition{}
	open := 0
	for _, end := range ends[topic] {
		if end.Err != nil {
			return end.Err
		}
		found[end.Partition] = &partition{hash: sha256.New(), end: end.Offset}
		if end.Offset > 0 {
			open++
		}
	}
	for open > 0 {
		fetches := broker.PollFetches(ctx)
		if errs := fetches.Errors(); len(errs) > 0 {
			return errs[0].Err
		}
		fetches.EachRecord(func(record *kgo.Record) {
			part := found[record.Partition]
			if record.Offset >= part.end {
				return
			}
			if !record.Attrs.IsControl() {
				part.add(record)
			}
			if part.read = record.Offset + 1; part.read == part.end {
				open--
			}
		})
	}
	for _, part := range found {
		part.Sum = hex.EncodeToString(part.hash.Sum(nil))
	}
	return json.NewEncoder(os.Stdout).Encode(found)
}
