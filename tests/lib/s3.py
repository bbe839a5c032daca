#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""A client of its own for S3 stores: what tests put there and look at.

    s3.py bucket NAME          make a bucket
    s3.py put BUCKET KEY FILE [META=VALUE]...
    s3.py get BUCKET KEY FILE
    s3.py head BUCKET KEY      the answer's headers
    s3.py list BUCKET          keys
    s3.py uploads BUCKET       keys of unfinished multipart uploads
    s3.py delete BUCKET KEY
    s3.py revoke USER KEYID    this key of a user's is no more: of Ceph's gateway, by
                               somebody who may change users
    s3.py ask SERVICE Action=NAME [NAME=VALUE]...
                               of the store's services sts and iam; the answer
    s3.py part BUCKET KEY NUMBER   begin an upload, put one empty part, end it

The endpoint is in AWS_ENDPOINT_URL_S3, path style; keys in AWS_ACCESS_KEY_ID and
AWS_SECRET_ACCESS_KEY.
"""
import hashlib
import hmac
import html
import http.client
import os
import re
import sys
import time
import urllib.parse


def ask(method, path, query='', body=b'', headers=(), service='s3'):
    url = urllib.parse.urlsplit(os.environ['AWS_ENDPOINT_URL_S3'])
    path = urllib.parse.quote(path, safe='/-_.~')
    date = time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())
    payload = hashlib.sha256(body).hexdigest()
    head = {'host': url.netloc, 'x-amz-date': date,
            'x-amz-content-sha256': payload, **dict(headers)}
    names = ';'.join(sorted(head))
    canonical = '\n'.join([method, path, query, *(f'{n}:{head[n]}'
                           for n in sorted(head)), '', names, payload])
    region = os.environ.get('AWS_REGION', 'us-east-1')
    scope = f'{date[:8]}/{region}/{service}/aws4_request'
    text = '\n'.join(['AWS4-HMAC-SHA256', date, scope,
                      hashlib.sha256(canonical.encode()).hexdigest()])
    key = ('AWS4' + os.environ['AWS_SECRET_ACCESS_KEY']).encode()
    for word in *scope.split('/'), text:
        key = hmac.new(key, word.encode(), hashlib.sha256).digest()
    head['authorization'] = (
        'AWS4-HMAC-SHA256 Credential='
        f'{os.environ["AWS_ACCESS_KEY_ID"]}/{scope},SignedHeaders={names},'
        f'Signature={key.hex()}')
    link = http.client.HTTPConnection(url.hostname, url.port, timeout=60)
    link.request(method, path + ('?' + query if query else ''), body, head)
    answer = link.getresponse()
    data = answer.read()
    if answer.status >= 300:
        sys.exit(f'{method} {path}: {answer.status} {data.decode()}')
    return answer, data


def main(what, bucket, *args):
    if what == 'bucket':
        ask('PUT', f'/{bucket}')
    elif what == 'put':
        with open(args[1], 'rb') as f:
            body = f.read()
        meta = [('x-amz-meta-' + m.split('=')[0], m.split('=')[1])
                for m in args[2:]]
        ask('PUT', f'/{bucket}/{args[0]}', '', body, meta)
    elif what == 'get':
        with open(args[1], 'wb') as f:
            f.write(ask('GET', f'/{bucket}/{args[0]}')[1])
    elif what == 'head':
        print(ask('HEAD', f'/{bucket}/{args[0]}')[0].headers)
    elif what == 'list':
        _, text = ask('GET', f'/{bucket}', 'encoding-type=url&list-type=2')
        text = text.decode()
        for key in re.findall('<Key>(.*?)</Key>', text):
            key = html.unescape(key)
            print(urllib.parse.unquote(key)
                  if '<EncodingType>url' in text else key)
    elif what == 'uploads':
        _, text = ask('GET', f'/{bucket}', 'uploads=')
        for key in re.findall('<Key>(.*?)</Key>', text.decode()):
            print(key)
    elif what == 'delete':
        ask('DELETE', f'/{bucket}/{args[0]}')
    elif what == 'ask':
        form = [('content-type', 'application/x-www-form-urlencoded')]
        body = urllib.parse.urlencode([tuple(a.split('=', 1)) for a in args],
                                      quote_via=urllib.parse.quote)
        print(ask('POST', '/', '', body.encode(), form, bucket)[1].decode())
    elif what == 'revoke':
        ask('DELETE', '/admin/user', f'access-key={args[0]}&key=&uid={bucket}')
    elif what == 'part':
        path = f'/{bucket}/{args[0]}'
        _, text = ask('POST', path, 'uploads=')
        upload = re.search('<UploadId>(.*?)</UploadId>', text.decode())[1]
        upload = 'uploadId=' + urllib.parse.quote(upload, safe='-_.~')
        try:
            ask('PUT', path, f'partNumber={args[1]}&{upload}')
        finally:
            ask('DELETE', path, upload)


main(*sys.argv[1:])
