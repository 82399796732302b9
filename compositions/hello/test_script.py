# `server`, `client`, `start_all` and `subtest` are given by the driver: nothing to import.
start_all()

with subtest("the web server starts"):
    server.wait_for_unit("hello")
    server.wait_for_open_port(80)

with subtest("the client gets the page"):
    page = client.succeed("curl --fail --silent http://server/")
    assert page == "Hello from the server\n", page

with subtest("there is no other page"):
    client.fail("curl --fail --silent http://server/nothing")
