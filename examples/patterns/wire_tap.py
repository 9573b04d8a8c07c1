"""Wire tap: a copy for whoever watches, whatever the strategy decides."""

from scene import Scene

with Scene("wire-tap") as scene:
    a, b, audit = scene.service("a"), scene.service("b"), scene.service("audit")
    tap = {"service": scene.name("audit"), "wireTap": True}
    scene.route(strategy="round_robin", destinations=[scene.name("a"), scene.name("b"), tap])
    for n in range(2):
        scene.send(n)
    assert len(scene.got(a)) == len(scene.got(b)) == 1 and len(scene.got(audit, 2)) == 2
    print("a and b took turns, audit saw both")
