"""gRPC as a server speaks it: calls and their messages over HTTP/2. And one call of our own, by itself.

    frames ─▶ http2 ─▶ connection ─▶ call ─▶ the method's work
    port: its methods, its connections, its end
    unary_call: a client, of frames alone

Sources: RFC 9113; https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""
