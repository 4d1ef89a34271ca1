// sarama is a client program on sarama.
package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/IBM/sarama"

	"ringlog/compat/contract"
)

type client struct{ brokers []string }

func main() {
	contract.Main(func(bootstrap string) (contract.Client, error) {
		return &client{[]string{bootstrap}}, nil
	})
}

var codecs = map[string]sarama.CompressionCodec{
	"none": sarama.CompressionNone, "gzip": sarama.CompressionGZIP, "snappy": sarama.CompressionSnappy,
	"lz4": sarama.CompressionLZ4, "zstd": sarama.CompressionZSTD,
}

func config() *sarama.Config {
	config := sarama.NewConfig()
	config.Version = sarama.V3_6_0_0
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	config.Consumer.Offsets.AutoCommit.Enable = false
	config.Consumer.Return.Errors = true
	return config
}

func (c *client) Produce(codec string, idempotent bool, files []contract.File) error {
	config := config()
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Compression = codecs[codec]
	config.Producer.Return.Successes = true
	config.Producer.Flush.Frequency = 5 * time.Millisecond
	// One request at a time keeps the order across retries.
	config.Net.MaxOpenRequests = 1
	config.Producer.Idempotent = idempotent
	producer, err := sarama.NewSyncProducer(c.brokers, config)
	if err != nil {
		return err
	}
	defer producer.Close()
	for _, file := range files {
		var messages []*sarama.ProducerMessage
		err := contract.Lines(file.Path, func(line []byte) error {
			messages = append(messages, &sarama.ProducerMessage{Topic: file.Topic, Value: sarama.ByteEncoder(line)})
			return nil
		})
		if err != nil {
			return err
		}
		if err := producer.SendMessages(messages); err != nil {
			return err
		}
	}
	return nil
}

func (c *client) Transact(id string, each func(func(string, [][]byte, bool) error) error) error {
	config := config()
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Return.Successes = true
	config.Net.MaxOpenRequests = 1
	config.Producer.Idempotent = true
	config.Producer.Transaction.ID = id
	producer, err := sarama.NewSyncProducer(c.brokers, config)
	if err != nil {
		return err
	}
	defer producer.Close()
	return each(func(topic string, values [][]byte, commit bool) error {
		if err := producer.BeginTxn(); err != nil {
			return err
		}
		var messages []*sarama.ProducerMessage
		for _, value := range values {
			messages = append(messages, &sarama.ProducerMessage{Topic: topic, Value: sarama.ByteEncoder(value)})
		}
		if err := producer.SendMessages(messages); err != nil {
			return err
		}
		if commit {
			return producer.CommitTxn()
		}
		return producer.AbortTxn()
	})
}

func (c *client) Consume(group string, topics []string, output *contract.Output) error {
	if group != "" {
		return c.consumeGroup(group, topics, output)
	}
	config := config()
	if output.Committed {
		config.Consumer.IsolationLevel = sarama.ReadCommitted
	}
	consumer, err := sarama.NewConsumer(c.brokers, config)
	if err != nil {
		return err
	}
	defer consumer.Close()
	ctx, cancel := context.WithTimeout(context.Background(), contract.Deadline)
	defer cancel()
	var lock sync.Mutex
	var readers sync.WaitGroup
	failed := make(chan error, 1)
	for _, topic := range topics {
		partitions, err := consumer.Partitions(topic)
		if err != nil {
			return err
		}
		for _, partition := range partitions {
			readers.Go(func() {
				if err := readPartition(ctx, consumer, topic, partition, output, &lock); err != nil {
					select {
					case failed <- err:
					default:
					}
					cancel()
				} else if full(output, &lock) {
					cancel()
				}
			})
		}
	}
	readers.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

func full(output *contract.Output, lock *sync.Mutex) bool {
	lock.Lock()
	defer lock.Unlock()
	return output.Full()
}

// readPartition reads until the output has all it wants or the time is up.
func readPartition(
	ctx context.Context, consumer sarama.Consumer, topic string, partition int32, output *contract.Output, lock *sync.Mutex,
) error {
	reader, err := consumer.ConsumePartition(topic, partition, sarama.OffsetOldest)
	if err != nil {
		return err
	}
	defer reader.AsyncClose()
	for !full(output, lock) {
		select {
		case message := <-reader.Messages():
			lock.Lock()
			_, err := output.Add(topic, partition, message.Offset, message.Value)
			lock.Unlock()
			if err != nil {
				return err
			}
		case err := <-reader.Errors():
			return err
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

type handler struct {
	output *contract.Output
	lock   sync.Mutex
	done   context.CancelFunc
	failed error
}

func (h *handler) Setup(sarama.ConsumerGroupSession) error   { return nil }
func (h *handler) Cleanup(sarama.ConsumerGroupSession) error { return nil }

func (h *handler) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case message, open := <-claim.Messages():
			if !open {
				return nil
			}
			if h.add(session, message) {
				return nil
			}
		case <-session.Context().Done():
			return nil
		}
	}
}

// add writes one record; once the output is full it commits and ends the session.
func (h *handler) add(session sarama.ConsumerGroupSession, message *sarama.ConsumerMessage) bool {
	h.lock.Lock()
	defer h.lock.Unlock()
	added, err := h.output.Add(message.Topic, message.Partition, message.Offset, message.Value)
	if added {
		session.MarkMessage(message, "")
	}
	if err != nil {
		h.failed = err
	}
	if err != nil || h.output.Full() {
		session.Commit()
		h.done()
		return true
	}
	return false
}

func (c *client) consumeGroup(group string, topics []string, output *contract.Output) error {
	consumer, err := sarama.NewConsumerGroup(c.brokers, group, config())
	if err != nil {
		return err
	}
	go func() {
		for range consumer.Errors() {
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), contract.Deadline)
	defer cancel()
	handler := &handler{output: output, done: cancel}
	for ctx.Err() == nil {
		if err := consumer.Consume(ctx, topics, handler); err != nil && ctx.Err() == nil {
			return err
		}
	}
	return errors.Join(handler.failed, consumer.Close())
}

func (c *client) Offsets(topic string, timeMs int64) (map[int32]int64, error) {
	broker, err := sarama.NewClient(c.brokers, config())
	if err != nil {
		return nil, err
	}
	defer broker.Close()
	partitions, err := broker.Partitions(topic)
	if err != nil {
		return nil, err
	}
	found := map[int32]int64{}
	for _, partition := range partitions {
		if found[partition], err = broker.GetOffset(topic, partition, timeMs); err != nil {
			return nil, err
		}
	}
	return found, nil
}

func (c *client) admin() (sarama.ClusterAdmin, error) {
	return sarama.NewClusterAdmin(c.brokers, config())
}

func (c *client) Create(topic string, partitions int32, config map[string]string) error {
	admin, err := c.admin()
	if err != nil {
		return err
	}
	defer admin.Close()
	entries := map[string]*string{}
	for key, value := range config {
		entries[key] = &value
	}
	detail := &sarama.TopicDetail{NumPartitions: partitions, ReplicationFactor: 1, ConfigEntries: entries}
	return admin.CreateTopic(topic, detail, false)
}

func (c *client) Describe(topic string) (*contract.Description, error) {
	admin, err := c.admin()
	if err != nil {
		return nil, err
	}
	defer admin.Close()
	topics, err := admin.DescribeTopics([]string{topic})
	if err != nil {
		return nil, err
	}
	if len(topics) != 1 {
		return nil, fmt.Errorf("asked for one topic, got %d", len(topics))
	}
	if topics[0].Err == sarama.ErrUnknownTopicOrPartition {
		return nil, nil
	}
	if topics[0].Err != sarama.ErrNoError {
		return nil, topics[0].Err
	}
	entries, err := admin.DescribeConfig(sarama.ConfigResource{Type: sarama.TopicResource, Name: topic})
	if err != nil {
		return nil, err
	}
	found := &contract.Description{Partitions: len(topics[0].Partitions), Config: map[string]string{}}
	for _, entry := range entries {
		found.Config[entry.Name] = entry.Value
	}
	return found, nil
}

func (c *client) Delete(topic string) error {
	admin, err := c.admin()
	if err != nil {
		return err
	}
	defer admin.Close()
	return admin.DeleteTopic(topic)
}
