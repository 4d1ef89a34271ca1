package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	pollLimit   = 200 * time.Millisecond
	transaction = 10 * time.Second
	// A copier that is killed has its place in the group until its next life takes it.
	session   = 30 * time.Second
	heartbeat = 500 * time.Millisecond
	// Every so manyth transaction is aborted, and its records are copied again.
	abortEvery = 7
	endTxn     = 26
)

// announcer prints a line whenever a request to end a transaction leaves: who watches can kill in the middle of it.
type announcer struct{}

func (announcer) OnBrokerWrite(_ kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, err error) {
	if key == endTxn && err == nil {
		fmt.Println("end")
	}
}

// copyTopic copies every record into the same partition of the target, each poll and the offsets behind it in one
// transaction, until each partition's committed offset is where `until` says. An error ends this life; the next goes on.
func copyTopic(ctx context.Context, bootstrap, id, source, target string, until []int64, records int) error {
	session, err := kgo.NewGroupTransactSession(
		kgo.SeedBrokers(bootstrap), kgo.TransactionalID(id), kgo.TransactionTimeout(transaction),
		kgo.ConsumerGroup(id), kgo.InstanceID(id), kgo.ConsumeTopics(source),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxWait(pollLimit), kgo.SessionTimeout(session), kgo.HeartbeatInterval(heartbeat),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.WithHooks(announcer{}),
		kgo.RetryBackoffFn(func(int) time.Duration { return retryEvery }),
	)
	if err != nil {
		return err
	}
	defer session.Close()
	admin := kadm.NewClient(session.Client())
	for number := 1; ctx.Err() == nil; number++ {
		poll, cancel := context.WithTimeout(ctx, pollLimit)
		fetches := session.PollRecords(poll, records)
		cancel()
		for _, failed := range fetches.Errors() {
			if !errors.Is(failed.Err, context.DeadlineExceeded) {
				return failed.Err
			}
		}
		if fetches.NumRecords() == 0 {
			if done, err := copied(ctx, admin, id, source, until); done || err != nil {
				return err
			}
			continue
		}
		if err := transact(ctx, session, fetches, target, number%abortEvery != 0); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// transact copies what was fetched; the session takes its position back when the transaction is not committed.
func transact(ctx context.Context, session *kgo.GroupTransactSession, fetches kgo.Fetches, target string, commit bool) error {
	if err := session.Begin(); err != nil {
		return err
	}
	promise := kgo.AbortingFirstErrPromise(session.Client())
	fetches.EachRecord(func(record *kgo.Record) {
		session.Produce(ctx, &kgo.Record{
			Topic: target, Partition: record.Partition, Key: record.Key, Value: record.Value,
		}, promise.Promise())
	})
	if !commit {
		// A transaction that holds something is aborted, not one whose records never left.
		if err := session.Client().Flush(ctx); err != nil {
			return err
		}
	}
	_, err := session.End(ctx, kgo.TransactionEndTry(promise.Err() == nil && commit))
	return err
}

// copied tells whether the group has committed every partition's end.
func copied(ctx context.Context, admin *kadm.Client, group, source string, until []int64) (bool, error) {
	committed, err := committedOf(ctx, admin, group, source, len(until))
	if err != nil {
		return false, err
	}
	for partition, end := range until {
		if committed[partition] < end {
			return false, nil
		}
	}
	return true, nil
}

// committedOf is the committed offset of each partition, 0 where there is none, once no transaction holds one.
func committedOf(ctx context.Context, admin *kadm.Client, group, topic string, partitions int) ([]int64, error) {
	offsets, err := admin.FetchOffsets(kadm.RequireStable(ctx), group)
	if err != nil {
		return nil, err
	}
	found := make([]int64, partitions)
	for partition := range found {
		offset, _ := offsets.Lookup(topic, int32(partition))
		if offset.Err != nil {
			return nil, offset.Err
		}
		found[partition] = max(0, offset.At)
	}
	return found, nil
}
