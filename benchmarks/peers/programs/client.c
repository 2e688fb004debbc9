/* A client on librabbitmq: client WORK URL COUNT SIZE QUEUE. WORK is relay, consume or publish.
 *
 * It forwards bodies as they are, without a look at them: it is the measure of what the wire alone costs. */

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <amqp.h>
#include <amqp_framing.h>
#include <amqp_tcp_socket.h>

enum { CHANNEL = 1, PREFETCH = 100, WINDOW = 500 };

static amqp_connection_state_t connection;
static amqp_bytes_t events, answered;

static void end(const char *what) {
    fprintf(stderr, "%s\n", what);
    exit(1);
}

static void check(bool well, const char *what) {
    if (!well) {
        end(what);
    }
}

static void answer(const char *what) {
    check(amqp_get_rpc_reply(connection).reply_type == AMQP_RESPONSE_NORMAL, what);
}

static void open_channel(char *url) {
    struct amqp_connection_info info;
    check(amqp_parse_url(url, &info) == AMQP_STATUS_OK, "the URL cannot be read");
    const char *vhost = *info.vhost ? info.vhost : "/";
    connection = amqp_new_connection();
    amqp_socket_t *socket = amqp_tcp_socket_new(connection);
    check(socket && amqp_socket_open(socket, info.host, info.port) == AMQP_STATUS_OK, "nobody listens there");
    amqp_rpc_reply_t reply =
        amqp_login(connection, vhost, 2047, 131072, 0, AMQP_SASL_METHOD_PLAIN, info.user, info.password);
    check(reply.reply_type == AMQP_RESPONSE_NORMAL, "the login failed");
    amqp_channel_open(connection, CHANNEL);
    answer("the channel was not opened");
}

static void begin_confirms(void) {
    amqp_confirm_select(connection, CHANNEL);
    answer("no confirms");
}

static void begin_consuming(const char *queue) {
    amqp_basic_qos(connection, CHANNEL, 0, PREFETCH, 0);
    answer("no prefetch");
    amqp_basic_consume(connection, CHANNEL, amqp_cstring_bytes(queue), amqp_empty_bytes, 0, 0, 0, amqp_empty_table);
    answer("nothing is consumed");
}

static void publish_one(const amqp_basic_properties_t *properties, amqp_bytes_t body) {
    int status = amqp_basic_publish(connection, CHANNEL, events, answered, 0, 0, properties, body);
    check(status == AMQP_STATUS_OK, "a publish failed");
}

/* The next frame with a method. */
static amqp_method_t next_method(void) {
    amqp_frame_t frame;
    do {
        amqp_maybe_release_buffers(connection);
        check(amqp_simple_wait_frame(connection, &frame) == AMQP_STATUS_OK, "the connection was lost");
    } while (frame.frame_type != AMQP_FRAME_METHOD);
    return frame.payload.method;
}

static void relay(bool publishes) {
    for (;;) {
        amqp_method_t method = next_method();
        if (method.id == AMQP_BASIC_DELIVER_METHOD) {
            amqp_basic_deliver_t *deliver = method.decoded;
            uint64_t tag = deliver->delivery_tag;
            amqp_message_t message;
            amqp_rpc_reply_t reply = amqp_read_message(connection, CHANNEL, &message, 0);
            check(reply.reply_type == AMQP_RESPONSE_NORMAL, "a message could not be read");
            if (publishes) {
                publish_one(&message.properties, message.body);
            } else {
                check(amqp_basic_ack(connection, CHANNEL, tag, 0) == 0, "an acknowledgement failed");
            }
            amqp_destroy_message(&message);
        } else if (method.id == AMQP_BASIC_ACK_METHOD) {
            /* There is one publish for each delivery, in their order. So the numbers are the same. */
            amqp_basic_ack_t *ack = method.decoded;
            check(amqp_basic_ack(connection, CHANNEL, ack->delivery_tag, ack->multiple) == 0,
                  "an acknowledgement failed");
        } else {
            end("an unexpected method");
        }
    }
}

static void publish(uint64_t count, size_t size) {
    bool *confirmed = calloc(count + 1, sizeof *confirmed);
    char *text = malloc(size);
    check(confirmed && text, "no memory");
    memset(text, 'b', size);
    amqp_bytes_t body = {.len = size, .bytes = text};
    amqp_basic_properties_t properties = {._flags = AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_DELIVERY_MODE_FLAG,
                                          .content_type = amqp_cstring_bytes("application/cbor"),
                                          .delivery_mode = 2};
    uint64_t sent = 0, waiting = 0, oldest = 1;
    while (sent < count || waiting) {
        for (; sent < count && waiting < WINDOW; sent++, waiting++) {
            publish_one(&properties, body);
        }
        amqp_method_t method = next_method();
        check(method.id == AMQP_BASIC_ACK_METHOD, "an unexpected method");
        amqp_basic_ack_t *ack = method.decoded;
        for (uint64_t tag = ack->multiple ? oldest : ack->delivery_tag; tag <= ack->delivery_tag; tag++) {
            waiting -= !confirmed[tag];
            confirmed[tag] = true;
        }
        while (oldest <= count && confirmed[oldest]) {
            oldest++;
        }
    }
    for (;;) {
        next_method(); /* until it is ended */
    }
}

int main(int arguments, char **argument) {
    check(arguments == 6, "client WORK URL COUNT SIZE QUEUE");
    events = amqp_cstring_bytes("events");
    answered = amqp_cstring_bytes("Answered");
    open_channel(argument[2]);
    if (strcmp(argument[1], "publish") == 0) {
        begin_confirms();
        printf("ready\n");
        fflush(stdout);
        getchar();
        publish(strtoull(argument[3], NULL, 10), strtoull(argument[4], NULL, 10));
    } else {
        bool publishes = strcmp(argument[1], "relay") == 0;
        if (publishes) {
            begin_confirms();
        }
        begin_consuming(argument[5]);
        relay(publishes);
    }
    return 0;
}
