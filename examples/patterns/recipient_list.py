"""Recipient list and dynamic router: an expression over the message names who gets it."""

from scene import Scene

with Scene("recipient-list") as scene:
    mail, sms = scene.service("mail"), scene.service("sms")
    scene.route(strategy="recipient_list", recipients="${payload.channels.map(c, 'recipient-list-' + c)}")
    scene.send({"channels": ["mail", "sms"], "text": "hello"})
    scene.send({"channels": ["sms"], "text": "again"})
    assert len(scene.got(mail)) == 1 and len(scene.got(sms, 2)) == 2
    print("each message went to the channels it named")
