import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;

/**
 * Kafka Streams counts words: lines of one topic become words, words go through a repartition topic to a RocksDB store with a
 * changelog topic, and each new count goes to another topic. Runs until it is stopped; ends with 1 when Streams gives up.
 *
 * <p>Usage: {@code java WordCount BOOTSTRAP APPLICATION at_least_once|exactly_once_v2 SOURCE TARGET FOLDER}, where FOLDER keeps
 * the store. Words are what ASCII white space separates, byte for byte; counts are written as decimal digits.
 */
public class WordCount {
    /** Bytes as they are: log lines need not be UTF-8. */
    private static final Serde<String> BYTES = Serdes.serdeFrom(
        (topic, text) -> text == null ? null : text.getBytes(StandardCharsets.ISO_8859_1),
        (topic, bytes) -> bytes == null ? null : new String(bytes, StandardCharsets.ISO_8859_1));

    private static KafkaStreams counting(String source, String target, Properties settings) {
        StreamsBuilder builder = new StreamsBuilder();
        builder.stream(source, Consumed.with(BYTES, BYTES))
            .flatMapValues(line -> Arrays.asList(line.split("[ \\t\\n\\x0B\\f\\r]+")))
            .filter((key, word) -> !word.isEmpty())
            .groupBy((key, word) -> word, Grouped.with("words", BYTES, BYTES))
            .count(Materialized.as("counts"))
            .toStream()
            .mapValues(count -> Long.toString(count))
            .to(target, Produced.with(BYTES, BYTES));
        return new KafkaStreams(builder.build(), settings);
    }

    private static Properties settings(String bootstrap, String application, String guarantee, Path folder) {
        Properties settings = new Properties();
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap);
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, application);
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, guarantee);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, folder.toString());
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 2);
        // Each record of a word gives a count: what is lost or done twice shows.
        settings.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 0);
        settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 200);
        settings.put(StreamsConfig.METADATA_MAX_AGE_CONFIG, 2000);
        // A member that was killed is missed soon.
        settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.SESSION_TIMEOUT_MS_CONFIG), 6000);
        settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.HEARTBEAT_INTERVAL_MS_CONFIG), 1500);
        settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
        return settings;
    }

    public static void main(String[] arguments) throws Exception {
        if (arguments.length != 6) {
            System.err.println("usage: WordCount BOOTSTRAP APPLICATION GUARANTEE SOURCE TARGET FOLDER");
            System.exit(2);
        }
        Path folder = Files.createDirectories(Path.of(arguments[5]));
        Properties settings = settings(arguments[0], arguments[1], arguments[2], folder);
        KafkaStreams streams = counting(arguments[3], arguments[4], settings);
        CountDownLatch gaveUp = new CountDownLatch(1);
        streams.setStateListener((now, before) -> {
            if (now == KafkaStreams.State.ERROR) {
                gaveUp.countDown();
            }
        });
        Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
        streams.start();
        gaveUp.await();
        System.exit(1);
    }
}
