package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// So long markers and committed offsets may take after the copier was told that its transaction ended.
	settleLimit = 15 * time.Second
	readLimit   = time.Minute
	commit      = 1
)

// bounds are a partition's high watermark and its last stable offset.
type bounds struct{ high, stable int64 }

func endsOf(ctx context.Context, client *kgo.Client, topic string) (map[int32]bounds, error) {
	admin := kadm.NewClient(client)
	high, err := admin.ListEndOffsets(ctx, topic)
	if err != nil {
		return nil, err
	}
	stable, err := admin.ListCommittedOffsets(ctx, topic)
	if err != nil {
		return nil, err
	}
	found := map[int32]bounds{}
	for partition, end := range high[topic] {
		last, _ := stable.Lookup(topic, partition)
		if end.Err != nil {
			return nil, end.Err
		}
		if last.Err != nil {
			return nil, last.Err
		}
		found[partition] = bounds{end.Offset, last.Offset}
	}
	return found, nil
}

// tally is what one reading of the target found.
type tally struct {
	Records        int64 `json:"records"`
	Commits        int64 `json:"commits"`
	Aborts         int64 `json:"aborts"`
	AbortedRecords int64 `json:"aborted_records"`
}

// check reads what is committed of the target: of each partition the records of the source's, each once and in order, as
// many as `until` says; the group's offsets are where `until` says, too, and no transaction is left open.
func check(ctx context.Context, bootstrap, group, source, target string, until []int64) error {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(bootstrap), kgo.RetryBackoffFn(func(int) time.Duration { return retryEvery }),
		kgo.KeepControlRecords(), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
	)
	if err != nil {
		return err
	}
	defer client.Close()
	ends, err := settled(ctx, client, group, source, target, until)
	if err != nil {
		return err
	}
	found, err := read(ctx, client, target, ends, until)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(found)
}

// settled waits until the markers of what was ended are written. Returns each partition's bounds.
func settled(ctx context.Context, client *kgo.Client, group, source, target string, until []int64) (map[int32]bounds, error) {
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	admin := kadm.NewClient(client)
	for {
		ends, unsettled := endsOf(ctx, client, target)
		for partition, end := range ends {
			if end.high != end.stable {
				unsettled = fmt.Errorf("%s-%d: a transaction is open at offset %d, the end is %d", target, partition, end.stable, end.high)
			}
		}
		committed, err := committedOf(ctx, admin, group, source, len(until))
		switch {
		case err != nil:
			unsettled = err
		case !slices.Equal(committed, until):
			unsettled = fmt.Errorf("%s: group %s has committed %v, should have %v", source, group, committed, until)
		}
		if unsettled == nil {
			return ends, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("after %v: %w", settleLimit, unsettled)
		case <-time.After(retryEvery):
		}
	}
}

// progress is how far the reading of a partition is: the next record's number, and the offset behind the last read.
type progress struct{ number, offset int64 }

func read(ctx context.Context, client *kgo.Client, target string, ends map[int32]bounds, until []int64) (tally, error) {
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	var found tally
	at, open := map[int32]*progress{}, 0
	starts := map[int32]kgo.Offset{}
	for partition, end := range ends {
		at[partition] = &progress{}
		if end.high > 0 {
			starts[partition] = kgo.NewOffset().At(0)
			found.AbortedRecords += end.high
			open++
		}
	}
	client.AddConsumePartitions(map[string]map[int32]kgo.Offset{target: starts})
	for open > 0 {
		fetches := client.PollFetches(ctx)
		for _, failed := range fetches.Errors() {
			for partition, end := range ends {
				if here := at[partition]; here.offset < end.high {
					return found, fmt.Errorf("%s-%d: read up to offset %d of %d, then: %w", target, partition, here.offset, end.high, failed.Err)
				}
			}
		}
		for _, record := range fetches.Records() {
			here, end := at[record.Partition], ends[record.Partition].high
			if record.Offset >= end {
				return found, fmt.Errorf("%s-%d: a record at offset %d, but nobody writes behind %d", target, record.Partition, record.Offset, end)
			}
			if err := found.add(target, record, here); err != nil {
				return found, err
			}
			if here.offset = record.Offset + 1; here.offset == end {
				open--
			}
		}
	}
	for partition, want := range until {
		if got := at[int32(partition)].number; got != want {
			return found, fmt.Errorf("%s-%d: %d records are committed, should be %d", target, partition, got, want)
		}
	}
	found.AbortedRecords -= found.Records + found.Commits + found.Aborts
	return found, nil
}

// add counts a marker, or compares a record with the one that must come next.
func (t *tally) add(target string, record *kgo.Record, here *progress) error {
	if record.Attrs.IsControl() {
		if len(record.Key) < 4 {
			return fmt.Errorf("%s-%d: a marker with a key of %d bytes at offset %d", target, record.Partition, len(record.Key), record.Offset)
		}
		if binary.BigEndian.Uint16(record.Key[2:]) == commit {
			t.Commits++
		} else {
			t.Aborts++
		}
		return nil
	}
	want := keyOf(record.Partition, here.number)
	if string(record.Key) != want {
		return fmt.Errorf("%s-%d: offset %d holds record %s, should be %s: lost, twice or out of order", target, record.Partition, record.Offset, record.Key, want)
	}
	if string(record.Value) != valueOf(want) {
		return fmt.Errorf("%s-%d: record %s at offset %d holds %q", target, record.Partition, want, record.Offset, record.Value)
	}
	here.number++
	t.Records++
	return nil
}
