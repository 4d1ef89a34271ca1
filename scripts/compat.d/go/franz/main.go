// franz is a client program on franz-go.
package main

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"ringlog/compat/contract"
)

type client struct{ seeds kgo.Opt }

func main() {
	contract.Main(func(bootstrap string) (contract.Client, error) {
		return &client{kgo.SeedBrokers(bootstrap)}, nil
	})
}

func limit() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), contract.Deadline)
}

var codecs = map[string]kgo.CompressionCodec{
	"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
	"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
}

func (c *client) Produce(codec string, idempotent bool, files []contract.File) error {
	options := []kgo.Opt{
		c.seeds, kgo.ProducerBatchCompression(codecs[codec]), kgo.AllowAutoTopicCreation(),
		kgo.RequiredAcks(kgo.AllISRAcks()), kgo.MaxBufferedRecords(1 << 20),
	}
	if !idempotent {
		options = append(options, kgo.DisableIdempotentWrite(), kgo.MaxProduceRequestsInflightPerBroker(1))
	}
	broker, err := kgo.NewClient(options...)
	if err != nil {
		return err
	}
	defer broker.Close()
	ctx, cancel := limit()
	defer cancel()
	var refused []error
	var lock sync.Mutex
	for _, file := range files {
		err := contract.Lines(file.Path, func(line []byte) error {
			broker.Produce(ctx, &kgo.Record{Topic: file.Topic, Value: line}, func(_ *kgo.Record, err error) {
				if err != nil {
					lock.Lock()
					refused = append(refused, err)
					lock.Unlock()
				}
			})
			return nil
		})
		if err != nil {
			return err
		}
	}
	if err := broker.Flush(ctx); err != nil {
		return err
	}
	if len(refused) > 0 {
		return fmt.Errorf("%d records refused: %w", len(refused), refused[0])
	}
	return nil
}

func (c *client) Transact(id string, each func(func(string, [][]byte, bool) error) error) error {
	broker, err := kgo.NewClient(c.seeds, kgo.TransactionalID(id), kgo.AllowAutoTopicCreation())
	if err != nil {
		return err
	}
	defer broker.Close()
	ctx, cancel := limit()
	defer cancel()
	return each(func(topic string, values [][]byte, commit bool) error {
		if err := broker.BeginTransaction(); err != nil {
			return err
		}
		var records []*kgo.Record
		for _, value := range values {
			records = append(records, &kgo.Record{Topic: topic, Value: value})
		}
		if err := broker.ProduceSync(ctx, records...).FirstErr(); err != nil {
			return err
		}
		return broker.EndTransaction(ctx, kgo.TransactionEndTry(commit))
	})
}

func (c *client) Consume(group string, topics []string, output *contract.Output) error {
	options := []kgo.Opt{
		c.seeds, kgo.ConsumeTopics(topics...), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
	}
	if output.Committed {
		options = append(options, kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	}
	if group != "" {
		options = append(options, kgo.ConsumerGroup(group), kgo.DisableAutoCommit())
	}
	broker, err := kgo.NewClient(options...)
	if err != nil {
		return err
	}
	defer broker.Close()
	ctx, cancel := limit()
	defer cancel()
	for !output.Full() && ctx.Err() == nil {
		fetches := broker.PollRecords(ctx, output.Count-output.Read)
		for _, failed := range fetches.Errors() {
			if !errors.Is(failed.Err, context.DeadlineExceeded) {
				return failed.Err
			}
		}
		for _, record := range fetches.Records() {
			if _, err := output.Add(record.Topic, record.Partition, record.Offset, record.Value); err != nil {
				return err
			}
		}
	}
	if group == "" || !output.Full() {
		return nil
	}
	positions := map[string]map[int32]kgo.EpochOffset{}
	for topic, partitions := range output.Positions {
		positions[topic] = map[int32]kgo.EpochOffset{}
		for partition, offset := range partitions {
			positions[topic][partition] = kgo.EpochOffset{Epoch: -1, Offset: offset}
		}
	}
	var refused error
	broker.CommitOffsetsSync(ctx, positions, commitResult(&refused))
	return refused
}

func (c *client) admin() (*kadm.Client, error) {
	broker, err := kgo.NewClient(c.seeds)
	if err != nil {
		return nil, err
	}
	return kadm.NewClient(broker), nil
}

func (c *client) Offsets(topic string, timeMs int64) (map[int32]int64, error) {
	admin, err := c.admin()
	if err != nil {
		return nil, err
	}
	defer admin.Close()
	ctx, cancel := limit()
	defer cancel()
	var listed kadm.ListedOffsets
	switch timeMs {
	case -1:
		listed, err = admin.ListEndOffsets(ctx, topic)
	case -2:
		listed, err = admin.ListStartOffsets(ctx, topic)
	default:
		listed, err = admin.ListOffsetsAfterMilli(ctx, timeMs, topic)
	}
	if err == nil {
		err = listed.Error()
	}
	found := map[int32]int64{}
	listed.Each(func(offset kadm.ListedOffset) { found[offset.Partition] = offset.Offset })
	return found, err
}

func (c *client) Create(topic string, partitions int32, config map[string]string) error {
	admin, err := c.admin()
	if err != nil {
		return err
	}
	defer admin.Close()
	ctx, cancel := limit()
	defer cancel()
	settings := map[string]*string{}
	for key, value := range config {
		settings[key] = kadm.StringPtr(value)
	}
	_, err = admin.CreateTopic(ctx, partitions, 1, settings, topic)
	return err
}

func (c *client) Describe(topic string) (*contract.Description, error) {
	admin, err := c.admin()
	if err != nil {
		return nil, err
	}
	defer admin.Close()
	ctx, cancel := limit()
	defer cancel()
	topics, err := admin.ListTopics(ctx, topic)
	if err != nil {
		return nil, err
	}
	if errors.Is(topics[topic].Err, kerr.UnknownTopicOrPartition) {
		return nil, nil
	}
	if topics[topic].Err != nil {
		return nil, topics[topic].Err
	}
	resources, err := admin.DescribeTopicConfigs(ctx, topic)
	if err != nil {
		return nil, err
	}
	resource, err := resources.On(topic, nil)
	if err != nil {
		return nil, err
	}
	if resource.Err != nil {
		return nil, resource.Err
	}
	found := &contract.Description{Partitions: len(topics[topic].Partitions), Config: map[string]string{}}
	for _, entry := range resource.Configs {
		found.Config[entry.Key] = entry.MaybeValue()
	}
	return found, nil
}

func (c *client) Delete(topic string) error {
	admin, err := c.admin()
	if err != nil {
		return err
	}
	defer admin.Close()
	ctx, cancel := limit()
	defer cancel()
	_, err = admin.DeleteTopic(ctx, topic)
	return err
}
