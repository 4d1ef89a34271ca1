import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.stream.Collectors;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * Many consumers of Kafka's own client in one process, each with a thread of its own, told by lines of standard input what to do:
 *
 * <pre>
 * prepare BOOTSTRAP GROUP TOPIC FIRST COUNT [KEY=VALUE]...   makes members FIRST, FIRST+1 and so on, which wait
 * go                                                         all subscribe and poll
 * close MEMBER                                               one leaves in order
 * end                                                        all leave
 * </pre>
 *
 * What happens is told line by line on standard output: a word, microseconds since 1970, the member (-1: all), and partitions
 * separated by commas. The words are prepared, assigned, revoked, lost, closing, closed, ended, and failed with the reason.
 */
public class GroupMembers {
    /** A member looks after its group at least so often. */
    private static final Duration POLL = Duration.ofMillis(20);

    private static final List<Member> MEMBERS = new ArrayList<>();
    private static CountDownLatch started = new CountDownLatch(1);

    private static synchronized void tell(String word, int member, String rest) {
        Instant now = Instant.now();
        long micros = now.getEpochSecond() * 1_000_000 + now.getNano() / 1_000;
        System.out.println(word + " " + micros + " " + member + " " + rest);
        System.out.flush();
    }

    private static String numbers(Collection<TopicPartition> partitions) {
        return partitions.stream().map(one -> Integer.toString(one.partition())).collect(Collectors.joining(","));
    }

    private static final class Member extends Thread implements ConsumerRebalanceListener {
        private final int number;
        private final String topic;
        private final KafkaConsumer<byte[], byte[]> consumer;
        private final CountDownLatch start;
        private volatile boolean leaving;

        Member(int number, String topic, Properties settings, CountDownLatch start) {
            super("member-" + number);
            this.number = number;
            this.topic = topic;
            this.start = start;
            this.consumer = new KafkaConsumer<>(settings);
        }

        @Override
        public void run() {
            try {
                start.await();
                consumer.subscribe(List.of(topic), this);
                while (!leaving) {
                    consumer.poll(POLL);
                }
                tell("closing", number, "");
                consumer.close();
                tell("closed", number, "");
            } catch (Exception error) {
                tell("failed", number, error.toString().replace('\n', ' '));
            }
        }

        @Override
        public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
            tell("assigned", number, numbers(partitions));
        }

        @Override
        public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
            tell("revoked", number, numbers(partitions));
        }

        @Override
        public void onPartitionsLost(Collection<TopicPartition> partitions) {
            tell("lost", number, numbers(partitions));
        }
    }

    private static void prepare(String[] words) {
        started = new CountDownLatch(1);
        int first = Integer.parseInt(words[4]);
        int count = Integer.parseInt(words[5]);
        for (int number = first; number < first + count; number++) {
            Properties settings = new Properties();
            settings.put(ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, words[1]);
            settings.put(ConsumerConfig.GROUP_ID_CONFIG, words[2]);
            settings.put(ConsumerConfig.CLIENT_ID_CONFIG, "member-" + number);
            settings.put(ConsumerConfig.KEY_DESERIALIZER_CLASS_CONFIG, ByteArrayDeserializer.class.getName());
            settings.put(ConsumerConfig.VALUE_DESERIALIZER_CLASS_CONFIG, ByteArrayDeserializer.class.getName());
            for (int index = 6; index < words.length; index++) {
                String[] setting = words[index].split("=", 2);
                settings.put(setting[0], setting[1]);
            }
            Member member = new Member(number, words[3], settings, started);
            MEMBERS.add(member);
            member.start();
        }
        tell("prepared", -1, "");
    }

    private static void end() throws InterruptedException {
        started.countDown();
        for (Member member : MEMBERS) {
            member.leaving = true;
        }
        for (Member member : MEMBERS) {
            member.join();
        }
        MEMBERS.clear();
        tell("ended", -1, "");
    }

    public static void main(String[] arguments) throws Exception {
        BufferedReader commands = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = commands.readLine(); line != null; line = commands.readLine()) {
            String[] words = line.trim().split(" ");
            switch (words[0]) {
                case "prepare" -> prepare(words);
                case "go" -> started.countDown();
                case "close" -> MEMBERS.stream()
                    .filter(member -> member.number == Integer.parseInt(words[1]))
                    .forEach(member -> member.leaving = true);
                case "end" -> end();
                default -> {
                    System.err.println("unknown command: " + line);
                    System.exit(2);
                }
            }
        }
        // Whoever gave the commands is gone.
        System.exit(0);
    }
}
